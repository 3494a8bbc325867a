"""What bench/scorecard and bench/growth make of a result: what the documents show, and what is a slide.

Usage: scorecard_report_test.py SOURCE_FOLDER
"""

import copy
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(sys.argv.pop())
SCORECARD, GROWTH = SOURCE / "bench" / "scorecard", SOURCE / "bench" / "growth"
RESULT = json.loads((SOURCE / "bench" / "scorecard.json").read_text())


def run(*command):
    return subprocess.run([sys.executable, *command], capture_output=True, text=True)


class Documents(unittest.TestCase):
    """No figure in them was typed by hand: making them anew of the kept results changes nothing."""

    def check(self, document, command):
        with tempfile.TemporaryDirectory() as folder:
            copy_of_document = pathlib.Path(folder) / "README.md"
            copy_of_document.write_text((SOURCE / document).read_text())
            done = run(*command, "--update-readme", copy_of_document)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(copy_of_document.read_text(), (SOURCE / document).read_text(),
                             f"{document} shows other figures than the kept result; run {command[0].name} --from ... --update-readme")

    def test_scorecard_in_the_readme(self):
        self.check("bench/README.md", (SCORECARD, "--from", SOURCE / "bench" / "scorecard.json"))

    def test_growth_in_its_readme(self):
        self.check("bench/README.md", (GROWTH, "--from", SOURCE / "bench" / "growth.json"))

    def test_the_chart_is_that_of_the_tables(self):
        with tempfile.TemporaryDirectory() as folder:
            chart = pathlib.Path(folder) / "growth.svg"
            done = run(GROWTH, "--from", SOURCE / "bench" / "growth.json", "--svg", chart)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(chart.read_text(), (SOURCE / "bench" / "growth.svg").read_text())

    def test_a_document_without_marks_is_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            document = pathlib.Path(folder) / "README.md"
            document.write_text("nothing\n")
            done = run(SCORECARD, "--from", SOURCE / "bench" / "scorecard.json", "--update-readme", document)
            self.assertEqual(done.returncode, 1)
            self.assertIn(str(document), done.stderr)
            self.assertEqual(document.read_text(), "nothing\n")


class Slides(unittest.TestCase):
    """A baseline made of a result holds for it, and not for a worse one."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.baseline = pathlib.Path(self.folder.name) / "baseline.json"
        self.assertEqual(self.judge(RESULT, "--write-baseline").returncode, 0)

    def tearDown(self):
        self.folder.cleanup()

    def judge(self, result, option="--check"):
        path = pathlib.Path(self.folder.name) / "result.json"
        path.write_text(json.dumps(result))
        return run(SCORECARD, "--from", path, option, self.baseline)

    def worse(self, change):
        result = copy.deepcopy(RESULT)
        change(result["programs"][0], result["programs"][0]["recorders"]["heaptape"])
        return self.judge(result)

    def test_the_same_result_passes(self):
        done = self.judge(RESULT)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_each_slide_is_caught_and_named(self):
        name = RESULT["programs"][0]["program"]
        slides = {
            "cpu_ratio is": lambda row, own: own.update(cpu_ratio=own["cpu_ratio"] * 2.1, call_cpu_ratio=own["call_cpu_ratio"] * 2.1),
            "events lost": lambda row, own: row.update(events_lost=1),
            "complete: False": lambda row, own: row.update(complete=False),
            "bytes added to the resident set": lambda row, own: own.update(added_rss_bytes=5 << 20),
            "two replays differ": lambda row, own: row["replay"].update(deterministic=False),
            "replay failed": lambda row, own: row["replay"].update(error="crashed"),
            "calls recorded of": lambda row, own: row.update(calls_of_program=row["events"] + 1),
        }
        for sentence, change in slides.items():
            done = self.worse(change)
            self.assertEqual(done.returncode, 3, sentence)
            self.assertIn(f"{name}: ", done.stderr)
            self.assertIn(sentence, done.stderr)

    def test_bytes_are_held_too(self):
        held = [row for row in RESULT["programs"] if row["recorders"]["heaptape"]["bytes_per_event"] > 0.05]
        self.assertTrue(held)
        result = copy.deepcopy(RESULT)
        for row in result["programs"]:
            row["recorders"]["heaptape"]["bytes_per_event"] *= 1.3
        done = self.judge(result)
        self.assertEqual(done.returncode, 3)
        for row in held:
            self.assertIn(f"{row['program']}: bytes_per_event", done.stderr)

    def test_a_program_that_was_not_measured_is_a_slide(self):
        result = copy.deepcopy(RESULT)
        gone = result["programs"].pop()["program"]
        done = self.judge(result)
        self.assertEqual(done.returncode, 3)
        self.assertIn(f"{gone}: was not measured", done.stderr)

    def test_a_replay_that_was_not_measured_is_a_slide(self):
        done = self.judge({**RESULT, "engine": None})
        self.assertEqual(done.returncode, 3)
        self.assertIn("replay against a bare loop: was not measured", done.stderr)

    def test_the_committed_baseline_bounds_the_short_form(self):
        bounds = json.loads((SOURCE / "bench" / "baseline.json").read_text())["scales"]["smoke"]
        self.assertEqual(set(bounds), {"tight_loop", "churn_1", "churn_3", "python"})
        self.assertTrue(any("call_cpu_ratio" in bound for bound in bounds.values()))

    def test_a_file_that_is_no_result_is_refused(self):
        done = self.judge({"schema_version": 1})
        self.assertEqual(done.returncode, 1)
        self.assertIn("no result of this bench/scorecard", done.stderr)


if __name__ == "__main__":
    unittest.main()
