"""bench/scorecard in its short form: every figure is there and a number, and what holds on any machine holds.

Usage: scorecard_smoke_test.py SOURCE_FOLDER BUILD_FOLDER

How long anything took is compared with nothing: bench/scorecard --check does that, where it is asked to.
"""

import json
import pathlib
import subprocess
import sys
import unittest

BUILD, SOURCE = pathlib.Path(sys.argv.pop()), pathlib.Path(sys.argv.pop())
sys.path.insert(0, str(SOURCE / "bench"))
from score_report import check_counts  # noqa: E402

PROGRAMS = ("tight_loop", "churn_1", "churn_3", "python")


class Smoke(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        kept = BUILD / "bench" / "scorecard.json"
        kept.unlink(missing_ok=True)
        cls.done = subprocess.run([sys.executable, SOURCE / "bench" / "scorecard", "--smoke", "--build", BUILD, "--json", kept],
                                  capture_output=True, text=True)
        assert cls.done.returncode == 0, cls.done.stderr
        cls.result = json.loads(kept.read_text())

    def test_nothing_is_lost_or_left_out(self):
        self.assertEqual(check_counts(self.result), [])
        self.assertEqual(self.result["left_out"], [])

    def test_every_figure_is_there(self):
        self.assertEqual([row["program"] for row in self.result["programs"]], list(PROGRAMS))
        for row in self.result["programs"]:
            own = row["recorders"]["heaptape"]
            for figures, keys in ((row, ("events", "peak_live_objects")), (own, ("cpu_ratio", "bytes_per_event")),
                                  (row["replay"], ("ns_per_event", "peak_rss_bytes"))):
                for key in keys:
                    self.assertGreater(figures[key], 0, (row["program"], key))
            for key in ("added_ns_per_event", "added_rss_bytes", "helper_ns_per_event"):
                self.assertIsInstance(own[key], (int, float), (row["program"], key))
            self.assertRegex(self.done.stdout, rf"(?m)^{row['program']} ")
        for program in ("tight_loop", "churn_1", "churn_3"):
            row = next(row for row in self.result["programs"] if row["program"] == program)
            self.assertGreater(row["recorders"]["heaptape"]["call_cpu_ratio"], 0, program)


if __name__ == "__main__":
    unittest.main()
