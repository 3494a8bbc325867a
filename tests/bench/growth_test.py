"""bench/growth: an interrupted run keeps its rows, and goes on from them.

Usage: growth_test.py SOURCE_FOLDER BUILD_FOLDER
"""

import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

BUILD, SOURCE = pathlib.Path(sys.argv.pop()), pathlib.Path(sys.argv.pop())
STEPS = ("write", "read", "replay", "record", "writer")


class Growth(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.kept = pathlib.Path(self.folder.name) / "growth.json"
        self.command = [sys.executable, SOURCE / "bench" / "growth", "--build", BUILD, "--quick", "--only", "events", "--json", self.kept]

    def test_an_interrupted_run_goes_on(self):
        running = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while not self.kept.exists() and running.poll() is None:
            time.sleep(0.02)
        running.send_signal(signal.SIGTERM)
        printed, talk = running.communicate()
        self.assertEqual(running.returncode, 130, talk)
        first = json.loads(self.kept.read_text())
        self.assertTrue(first["unfinished"])
        self.assertEqual([row["value"] for row in first["tables"]["events"]], [100_000])
        self.assertIn(f"the same command goes on from {self.kept}", talk)
        self.assertIn("100,000", printed)

        done = subprocess.run(self.command, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        whole = json.loads(self.kept.read_text())
        self.assertNotIn("unfinished", whole)
        rows = whole["tables"]["events"]
        self.assertEqual(rows[0], first["tables"]["events"][0])
        self.assertEqual([row["value"] for row in rows], [100_000, 1_000_000])
        for row in rows:
            self.assertAlmostEqual(row["events"], row["value"], delta=0.1 * row["value"])
            for step in STEPS:
                if step != "record":  # a difference of two runs, which on a busy machine may come out below zero
                    self.assertGreater(row[step + "_ns_per_event"], 0, (step, row))
        # Progress says of each step when it began.
        for step in ("write", "read", "replay", "record"):
            self.assertRegex(done.stderr, rf"(?m)^\[ *\d+ s\] events 1,000,000: {step}")
        self.assertNotIn("100,000", done.stderr)

    def test_what_is_no_result_is_refused(self):
        self.kept.write_text("{}")
        done = subprocess.run(self.command, capture_output=True, text=True)
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"{self.kept}: no result of this bench/growth", done.stderr)


if __name__ == "__main__":
    unittest.main()
