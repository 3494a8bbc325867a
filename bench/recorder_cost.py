#!/usr/bin/env python3
"""What recording costs the recorded program, against the bare program in the same run.

    bench/recorder_cost.py build/release [--repeats 5] [--format table|json]

Bare and recorded runs take turns, and the smallest CPU time of each counts: other work on the machine only
adds. CPU time of the program itself, without the writer's, which is given beside it. A program that allocates
faster than the writer can read waits for it; the wait is stated, and its sleeping and waking is in the CPU time.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile


def program_cpu(command, cwd):
    """(CPU seconds, stdout, stderr) of a child and all that it waited for."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, cwd=cwd)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
        out.seek(0)
        err.seek(0)
        text, talk = out.read().decode(), err.read().decode()
        if status != 0:
            sys.exit(f"recorder_cost: {command[0]}: status {status}: {talk}")
        return usage.ru_utime + usage.ru_stime, text, talk


def figures(talk):
    return {name: int(value.replace(",", "")) for name, value in re.findall(r"heaptape:   (\w+) ([\d,]+)", talk)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", help="build folder, e.g. build/release")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--format", choices=["table", "json"], default="table")
    arguments = parser.parse_args()
    build = os.path.abspath(arguments.build)
    heaptape = os.path.join(build, "bin", "heaptape")
    loop = os.path.join(build, "bench", "malloc_loop")
    cc1plus = subprocess.run(["g++", "-print-prog-name=cc1plus"], capture_output=True, text=True, check=True).stdout.strip()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "a.cc")
        with open(source, "w") as file:
            file.write("#include <algorithm>\n#include <map>\n#include <regex>\n#include <string>\n"
                       "std::map<std::string, std::regex> m;\nint main() { return int(m.count(\"a\")); }\n")
        work = ("d = {}\nfor i in range(300000):\n  d[i % 5000] = [str(i), (i, i + 1)]\nprint(len(d))")
        os.environ["PYTHONMALLOC"] = "malloc"
        cases = [
            ("malloc/free, 1 thread", [loop, "1", "5000000"]),
            ("malloc/free, 3 threads", [loop, "3", "2000000"]),
            ("cc1plus", [cc1plus, "-quiet", "-imultiarch", "x86_64-linux-gnu", "-O1", source, "-o", os.path.join(folder, "a.s")]),
            ("python, PYTHONMALLOC=malloc", ["/usr/bin/python3", "-c", work]),
        ]
        tape = os.path.join(folder, "x.tape")
        record = [heaptape, "record", "-v", "--max-wait", "600s", "-o", tape, "--"]
        for name, command in cases:
            bare, recorded, writer = [], [], []
            for _ in range(arguments.repeats):
                cpu, text, _ = program_cpu(command, folder)
                if command[0] == loop:
                    cpu = float(text.split()[0])
                bare.append(cpu)
                # The program's own time is what `heaptape record` waited for, less what that took itself.
                cpu, text, talk = program_cpu(record + command, folder)
                if command[0] == loop:
                    cpu = float(text.split()[0])
                recorded.append(cpu)
                seen = figures(talk)
                writer.append(seen["writer_cpu_ns"] / max(1, seen["events"]))
            result = {"program": name, "events": seen["events"], "cpu_ratio": min(recorded) / min(bare),
                      "writer_cpu_ns_per_event": min(writer),
                      "waited_seconds": seen["wait_ns"] / 1e9, "lost": seen["lost"]}
            if command[0] == loop:
                result["added_ns_per_event"] = min(recorded) - min(bare)
            else:
                result["added_ns_per_event"] = (min(recorded) - min(bare)) * 1e9 / max(1, seen["events"])
            results.append(result)
    if arguments.format == "json":
        print(json.dumps({"schema_version": 1, "results": results}, indent=2))
        return
    print(f"{'program':30} {'events':>12} {'CPU ratio':>10} {'added ns':>9} {'writer ns':>10} {'waited s':>9}")
    for result in results:
        print(f"{result['program']:30} {result['events']:12,} {result['cpu_ratio']:10.3f} {result['added_ns_per_event']:9.1f} "
              f"{result['writer_cpu_ns_per_event']:10.1f} {result['waited_seconds']:9.2f}")


if __name__ == "__main__":
    main()
