#!/usr/bin/env python3
"""What recording costs the recorded program, against the bare program in the same run.

    bench/recorder_cost.py build/release [--repeats 7] [--only NAME] [--format table|json]

Bare and recorded runs take turns, and the smallest CPU time of each counts: other work on the machine only
adds. It is the CPU time of the program itself; the writer's, a process of its own, is given per event beside it.
"Added MiB" is what the peak resident set grows by; the writer's own memory, by live object, comes last. A program that allocates faster than the writer can read waits
for it: the wait is stated, and its sleeping and waking is in the CPU time. What is to hold: 15 ns added by each event
of the loops, a ratio of 1.05 for programs, 4 MiB, 80 ns of the writer.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

from build_tree import parts_or_exit

DENSE = "d = {}\nfor i in range(300000):\n  d[i % 5000] = [str(i), (i, i + 1)]\nprint(len(d))"
PARSE = ("import ast, glob, os\nfiles = sorted(glob.glob(os.path.dirname(ast.__file__) + '/*.py'))[:60]\n"
         "print(sum(len(ast.dump(ast.parse(open(f, encoding='utf-8').read()))) for f in files))")
# Blocks whose touched pages are looked at, half of each used.
BIG = ("total = 0\nfor i in range(3000):\n  b = [bytearray(1) * (80000 + i % 7 * 40000) for _ in range(4)]\n"
       "  total += sum(map(len, b)) + sum(x * x for x in range(3000))\nprint(total)")
SOURCE = ("#include <algorithm>\n#include <map>\n#include <regex>\n#include <string>\n"
          "std::map<std::string, std::regex> m;\nint main() { return int(m.count(\"a\")); }\n")


def recording(library, tape, descriptor, options):
    """The variables under which a program is recorded, however long it waits; the writer's figures come by `descriptor`."""
    pipe = os.fstat(descriptor)
    return {"LD_PRELOAD": str(library), "HEAPTAPE_OUTPUT": str(tape),
            "HEAPTAPE_OPTIONS": f"replace=1;max_wait_ns=600000000000;{options}", "HEAPTAPE_REPORT": f"{descriptor}:{pipe.st_dev}:{pipe.st_ino}"}


def read_figures(report):
    """What the writer reports, read to its end: the writer is done then. Nothing of a bare run."""
    with os.fdopen(report) as lines:
        return {name: int(value) for name, value in (line.split("=", 1) for line in lines) if value.strip().isdigit()}


class Run:
    """One run: CPU seconds and peak resident KiB of the process itself, what it printed, the recorder's figures."""

    def __init__(self, command, folder, library=None, options=""):
        environment = dict(os.environ, PYTHONMALLOC="malloc")
        report, end = os.pipe()
        if library:
            environment.update(recording(library, os.path.join(folder, "x.tape"), end, options))
        with tempfile.TemporaryFile() as out:
            process = subprocess.Popen(command, stdout=out, cwd=folder, env=environment,
                                       pass_fds=[end] if library else [])
            os.close(end)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = status
            out.seek(0)
            self.text = out.read().decode()
        if status != 0:
            sys.exit(f"recorder_cost: {command[0]}: status {status}")
        self.figures = read_figures(report)
        if library and not self.figures:
            sys.exit(f"recorder_cost: {command[0]}: nothing was recorded")
        self.cpu = usage.ru_utime + usage.ru_stime
        self.peak_kib = usage.ru_maxrss


def writer_memory(build, folder, library, live):
    """Live objects at a program's end and the writer's peak resident bytes, with what it shares with the program."""
    run = Run([os.path.join(build, "bench", "allocation_load"), "churn", "1", str(8 * live), str(live)], folder, library)
    return run.figures["live_objects"], run.figures["writer_peak_rss_bytes"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", help="build folder, e.g. build/release")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", help="only the programs whose name contains this")
    parser.add_argument("--format", choices=["table", "json"], default="table")
    arguments = parser.parse_args()
    build = os.path.abspath(arguments.build)
    library, loop, _ = map(str, parts_or_exit("recorder_cost", build, "libheaptape.so", "malloc_loop", "allocation_load"))
    cc1plus = subprocess.run(["g++", "-print-prog-name=cc1plus"], capture_output=True, text=True, check=True).stdout.strip()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "a.cc")
        with open(source, "w") as file:
            file.write(SOURCE)
        compile_it = [cc1plus, "-quiet", "-imultiarch", "x86_64-linux-gnu", "-O1", source, "-o", os.path.join(folder, "a.s")]
        stacks = "stack_bytes=524288"
        cases = [
            ("malloc/free, 1 thread", [loop, "1", "5000000"], ""),
            ("malloc/free, 1 thread, --stacks", [loop, "1", "5000000"], stacks),
            ("malloc/free, 3 threads", [loop, "3", "2000000"], ""),
            ("malloc/free, 3 threads, --stacks", [loop, "3", "2000000"], stacks),
            ("cc1plus", compile_it, ""),
            ("cc1plus, --stacks", compile_it, stacks),
            ("cc1plus, --no-touched-pages", compile_it, "big_blocks=0"),
            ("python, parsing its library", ["/usr/bin/python3", "-c", PARSE], ""),
            ("python, parsing, --stacks", ["/usr/bin/python3", "-c", PARSE], stacks),
            ("python, only allocating", ["/usr/bin/python3", "-c", DENSE], ""),
            ("python, large blocks", ["/usr/bin/python3", "-c", BIG], ""),
            ("... --no-touched-pages", ["/usr/bin/python3", "-c", BIG], "big_blocks=0"),
        ]
        for name, command, options in cases:
            if arguments.only and arguments.only not in name:
                continue
            bare, recorded = [], []
            for _ in range(arguments.repeats):
                bare.append(Run(command, folder))
                recorded.append(Run(command, folder, library, options))
            if {run.text for run in bare + recorded} != {bare[0].text} and command[0] != loop:
                sys.exit(f"recorder_cost: {name}: the recorded program printed something else")
            before, after = min(run.cpu for run in bare), min(run.cpu for run in recorded)
            best = min(recorded, key=lambda run: run.cpu)
            events = best.figures["events"]
            result = {"program": name, "events": events, "cpu_ratio": after / before,
                      "added_ns_per_event": (after - before) * 1e9 / events,
                      "writer_cpu_ns_per_event": min(run.figures["writer_cpu_ns"] for run in recorded) / events,
                      "waited_seconds": best.figures["wait_ns"] / 1e9, "lost": best.figures["lost"],
                      "large_blocks_waited_for": best.figures["big_waits"],
                      "large_blocks_waited_seconds": best.figures["big_wait_ns"] / 1e9}
            # The loop tells its own peak: the kernel's for a child begins with that of this program.
            peak = (lambda run: int(run.text.split()[1])) if command[0] == loop else (lambda run: run.peak_kib)
            result["added_peak_mib"] = (min(map(peak, recorded)) - min(map(peak, bare))) / 1024
            results.append(result)
        few, many = (writer_memory(build, folder, library, live) for live in (10_000, 1_000_000))
        writer = {"rss_bytes_of_10000_objects": few[1], "bytes_per_live_object": (many[1] - few[1]) / (many[0] - few[0])}
    if arguments.format == "json":
        print(json.dumps({"schema_version": 3, "results": results, "writer_memory": writer}, indent=2))
        return
    print(f"{'program':32} {'events':>12} {'CPU ratio':>10} {'added ns':>9} {'added MiB':>10} {'writer ns':>10} {'waited s':>9} {'large s':>8} {'lost':>5}")
    for result in results:
        print(f"{result['program']:32} {result['events']:12,} {result['cpu_ratio']:10.3f} {result['added_ns_per_event']:9.1f} "
              f"{result['added_peak_mib']:10.2f} {result['writer_cpu_ns_per_event']:10.1f} {result['waited_seconds']:9.2f} "
              f"{result['large_blocks_waited_seconds']:8.2f} {result['lost']:5}")
    print(f"\nThe writer's peak resident set: {writer['rss_bytes_of_10000_objects'] / 2**20:.1f} MiB with 10,000 live objects, and "
          f"{writer['bytes_per_live_object']:.0f} bytes for each one more.")


if __name__ == "__main__":
    main()
