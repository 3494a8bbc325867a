"""The benchmarks of single costs, in very short form: each runs, and prints its figures with the unit they have.

Usage: benchmarks_test.py SOURCE_FOLDER BUILD_FOLDER
"""

import json
import pathlib
import subprocess
import sys
import unittest

BUILD, SOURCE = pathlib.Path(sys.argv.pop()), pathlib.Path(sys.argv.pop())


def run(name, *arguments):
    return subprocess.run([BUILD / "bench" / name, "--benchmark_min_time=0.001", *arguments], check=True, capture_output=True, text=True).stdout


class Benchmarks(unittest.TestCase):
    def check_time_per_event(self, name, which):
        """The table and the JSON give the same time of an event, which is that of the iteration divided by its events."""
        text = run(name, f"--benchmark_filter={which}")
        self.assertRegex(text, r"time_per_event=[\d.]+[nu]s\b")
        row, = json.loads(run(name, f"--benchmark_filter={which}", "--benchmark_format=json"))["benchmarks"]
        self.assertEqual(row["time_unit"], "ms")
        self.assertGreater(row["time_per_event"], 0, row)
        return row["cpu_time"] * 1e-3 / row["time_per_event"]

    def test_writer(self):
        self.assertAlmostEqual(self.check_time_per_event("writer_benchmark", "^Merge/threads:3"), 1 << 20, delta=2)
        for row in json.loads(run("writer_benchmark", "--benchmark_filter=MergeIdEncode/live:1000/|^Encode/live:1000/", "--benchmark_format=json"))["benchmarks"]:
            self.assertTrue(0 < row["bytes_per_event"] < 16, row)

    def test_codec(self):
        events = {self.check_time_per_event("codec_benchmark", f"^{kind}Trace/level:3/block_ki_events:16/") for kind in ("Write", "Read")}
        self.assertGreater(min(events), 10_000)

    def test_kernel(self):
        rows = json.loads(run("kernel_benchmark", "--benchmark_format=json"))["benchmarks"]
        names = " ".join(row["name"] for row in rows)
        for part in ("statm", "status", "smaps_rollup", "PresentPages", "SwitchByArchPrctl", "SwitchThereAndBackByFutex"):
            self.assertIn(part, names)
        for row in rows:
            self.assertTrue(row.get("error_occurred") or row["cpu_time"] > 0, row)

    def test_replay_leaves_out_and_names_what_fails(self):
        broken = next(BUILD.rglob("libmisbehaving_allocator.so"))
        text = subprocess.run([BUILD / "bench" / "replay_benchmark", "--events", "20000", "--live", "1000", "--rounds", "1",
                               "-a", f"{broken}:MISBEHAVE_HOW=abort,MISBEHAVE_AFTER=100", "-a", "glibc"],
                              check=True, capture_output=True, text=True).stdout
        self.assertRegex(text, r"(?m)^libmisbehaving_allocator.*: left out: .*misbehaving: giving up")
        self.assertRegex(text, r"(?m)^glibc \S+ +[\d.]+ +[\d.]+ +[+-][\d.]+ +[\d.]+$")

    def test_cost_of_calls(self):
        done = subprocess.run([sys.executable, SOURCE / "bench" / "call_cost", "--build", BUILD, "--rounds", "1", "--min-time", "0.001", "--format", "json"],
                              capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = {row["benchmark"]: row for row in json.loads(done.stdout)["results"]}
        calls = [f"{name}/threads:{threads}" for threads in (1, 3) for name in
                 ("MallocFreePairNs/bytes:64", "MallocFreePairNs/bytes:1024", "CallocFreePairNs", "ReallocPairNs", "BigMallocFreePairNs")]
        self.assertEqual(set(rows), {*calls, "ThreadCreateJoinNs", "ThreadThatAllocatesNs"})
        for row in rows.values():
            for way in ("bare", "recorded", "with_stacks"):
                self.assertGreater(row[way + "_ns"], 0, row)


if __name__ == "__main__":
    unittest.main()
