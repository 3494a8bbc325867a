"""The part of bench/scorecard that replays against a bare loop, in short form: each allocator has its figures.

Usage: scorecard_engine_test.py SOURCE_FOLDER BUILD_FOLDER
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

BUILD, SOURCE = pathlib.Path(sys.argv.pop()), pathlib.Path(sys.argv.pop())


class Engine(unittest.TestCase):
    def test_every_figure_is_there(self):
        with tempfile.TemporaryDirectory() as folder:
            kept = pathlib.Path(folder) / "result.json"
            done = subprocess.run([sys.executable, SOURCE / "bench" / "scorecard", "--build", BUILD, "--smoke", "--programs", "engine", "--json", kept],
                                  capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)
            result = json.loads(kept.read_text())
        self.assertEqual(result["left_out"], [])
        engine = result["engine"]
        self.assertEqual(engine["events"], 200_000)
        self.assertGreaterEqual(engine["null_million_events_per_second"], 0)
        self.assertIn(f"{engine['null_million_events_per_second']:.1f} million events a second", done.stdout)

        self.assertEqual({row["allocator"].split()[0] for row in engine["allocators"]}, {"glibc", "jemalloc", "mimalloc", "tcmalloc"})
        for row in engine["allocators"]:
            self.assertGreater(row["bare"], 0, row)
            self.assertGreater(row["engine"], 0, row)
            self.assertRegex(done.stdout, rf"(?m)^{row['allocator']} +{row['bare']:.1f} +{row['engine']:.1f} +[+-]")


if __name__ == "__main__":
    unittest.main()
