"""bench/scorecard where something is missing or fails: the rest is measured, and the result says what is not in it.

Usage: scorecard_failures_test.py SOURCE_FOLDER BUILD_FOLDER
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

BUILD, SOURCE = pathlib.Path(sys.argv.pop()), pathlib.Path(sys.argv.pop())


def run(*arguments):
    return subprocess.run([sys.executable, SOURCE / "bench" / "scorecard", "--build", BUILD, *arguments], capture_output=True, text=True)


class Failures(unittest.TestCase):
    def test_a_program_that_fails_takes_nothing_from_the_others(self):
        with tempfile.TemporaryDirectory() as folder:
            kept = pathlib.Path(folder) / "result.json"
            done = run("--smoke", "--programs", "tight_loop", "--program", "failing=false", "--json", kept)
            self.assertEqual(done.returncode, 0, done.stderr)
            result = json.loads(kept.read_text())
            self.assertEqual([row["program"] for row in result["programs"]], ["tight_loop"])
            self.assertEqual(len(result["left_out"]), 1)
            self.assertIn("failing: ", result["left_out"][0])
            self.assertIn("status 1", result["left_out"][0])
            self.assertIn(result["left_out"][0], done.stdout)

    def test_a_program_of_ones_own_is_a_row_and_a_peer_is_a_column(self):
        library = next(BUILD.glob("lib*/**/libheaptape.so"))
        with tempfile.TemporaryDirectory() as folder:
            peer, kept = pathlib.Path(folder) / "peer.json", pathlib.Path(folder) / "result.json"
            # Our own library under another name: a peer that is sure to be here.
            peer.write_text(json.dumps({"name": "peer", "library": str(library), "environment": {"HEAPTAPE_OUTPUT": "{output}"},
                                        "prepare": f"{BUILD}/bin/heaptape verify {{output}}",
                                        "replay": f"{BUILD}/bin/heaptape replay --no-cache -a glibc {{output}}"}))
            done = run("--smoke", "--programs", "none", "--program", f"loop={BUILD}/bench/allocation_load loop 1 100000",
                       "--peer", peer, "--json", kept)
            self.assertEqual(done.returncode, 0, done.stderr)
            row, = json.loads(kept.read_text())["programs"]
            self.assertEqual(row["program"], "loop")
            own, other = row["recorders"]["heaptape"], row["recorders"]["peer"]
            self.assertGreater(other["replay_ns_per_event"], 0)
            # Of the same calls, so nearly alike; time marks, which are the more the slower it goes, take some bytes.
            self.assertLess(abs(other["bytes_per_event"] - own["bytes_per_event"]), 1)
            self.assertGreater(other["bytes_per_event"], 0)
            self.assertIn("ns/event, peer", done.stdout)

    def test_what_cannot_be_run_is_refused_before_anything_is_measured(self):
        for arguments, sentence in (
            (("--peer", "x=/nowhere/lib.so"), "no such library"),
            (("--peer", os.devnull), "--peer"),
            (("--program", "=ls"), "NAME=COMMAND"),
            (("--programs", "none"), "no program was measured"),
            (("--from", os.devnull), os.devnull),
        ):
            done = run(*(() if "--from" in arguments else ("--smoke",)), *arguments)
            self.assertEqual(done.returncode, 1, arguments)
            self.assertIn(sentence, done.stderr)
            self.assertNotIn("Traceback", done.stderr)


if __name__ == "__main__":
    unittest.main()
