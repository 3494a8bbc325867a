"""The fixed programs of bench/scorecard, and how one of them is run to its end and charged."""

import json
import os
import pathlib
import shutil
import subprocess
import time


class Failure(Exception):
    """What could not be measured, and why."""


PYTHON_PROGRAM = """
import json
for _ in range({rounds}):
    table = {{'key%d' % (i * 7919 % 20000): [i, str(i) * 3, {{'n': i}}] for i in range(20000)}}
    back = json.loads(json.dumps(table))
    for key in list(back)[::2]: del back[key]
    words = ' '.join('w%d' % (i % 5000) for i in range(30000)).split()
"""


class Program:
    def __init__(self, name, command, environment=None, client=None, counts_calls=False):
        self.name, self.command, self.environment, self.client = name, command, environment or {}, client
        self.counts_calls = counts_calls  # prints how many calls it made and the CPU nanoseconds they took


class RedisLoad:
    """Drives a redis-server through a socket in the temporary folder, with the same requests at every run."""

    def __init__(self, folder, requests):
        self.folder, self.requests = folder, requests
        self.socket = str(folder / "redis.sock")

    def command(self):
        return ["redis-server", "--port", "0", "--unixsocket", self.socket, "--save", "", "--appendonly", "no",
                "--dir", str(self.folder), "--activedefrag", "no"]

    def prepare(self):
        pathlib.Path(self.socket).unlink(missing_ok=True)

    def drive(self, process):
        deadline = time.monotonic() + 60
        while not os.path.exists(self.socket):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failure("redis-server did not come up")
            time.sleep(0.05)
        subprocess.run(["redis-benchmark", "-s", self.socket, "-q", "-n", str(self.requests), "-r", "20000", "-d", "200",
                        "-c", "20", "-t", "set,lpush,hset,sadd,lrange_100"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["redis-cli", "-s", self.socket, "shutdown", "nosave"], stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)


def translation_unit(folder, classes):
    """A big preprocessed C++ file and the compiler proper."""
    headers = ("regex", "map", "unordered_map", "iostream", "random", "functional", "string", "algorithm", "vector")
    text = "".join(f"#include <{header}>\n" for header in headers)
    for i in range(classes):
        text += (f"struct S{i} {{ std::map<std::string, std::vector<int>> m; std::unordered_map<int, S{max(0, i - 1)}*> u;\n"
                 f"  int f(int x) {{ m[std::to_string(x)].push_back({i}); u[x] = nullptr; return static_cast<int>(m.size()); }} }};\n")
    source = folder / "unit.cc"
    source.write_text(text)
    subprocess.run(["g++", "-E", "-P", str(source), "-o", str(folder / "unit.ii")], check=True)
    compiler = subprocess.run(["g++", "-print-prog-name=cc1plus"], check=True, capture_output=True, text=True).stdout.strip()
    return [compiler, "-quiet", "-fpreprocessed", "-O1", str(folder / "unit.ii"), "-o", "/dev/null"]


def fixed_programs(build, folder, scale, chosen):
    """The programs that are installed, and sentences for those that are not."""
    load = str(build / "bench" / "allocation_load")
    calls = {"smoke": 400_000, "quick": 10_000_000, "full": 40_000_000}[scale]
    found, missing = [], []

    def add(name, needs, make):
        if chosen and name not in chosen:
            return
        absent = [program for program in needs if not shutil.which(program)]
        if absent:
            missing.append(f"{name}: no {', '.join(absent)} here; ./bootstrap bench installs it")
        else:
            found.append(make())

    add("tight_loop", [], lambda: Program("tight_loop", [load, "loop", "1", str(calls)], counts_calls=True))
    add("churn_1", [], lambda: Program("churn_1", [load, "churn", "1", str(calls // 2)], counts_calls=True))
    add("churn_3", [], lambda: Program("churn_3", [load, "churn", "3", str(calls // 2)], counts_calls=True))
    rounds = {"smoke": 1, "quick": 4, "full": 15}[scale]
    add("python", ["/usr/bin/python3"],
        lambda: Program("python", ["/usr/bin/python3", "-s", "-S", "-c", PYTHON_PROGRAM.format(rounds=rounds)],
                        {"PYTHONMALLOC": "malloc", "PYTHONHASHSEED": "0"}))
    if scale == "smoke":
        return found, missing
    add("cc1plus", ["g++"], lambda: Program("cc1plus", translation_unit(folder, {"quick": 15, "full": 80}[scale])))

    def redis():
        client = RedisLoad(folder, {"quick": 20_000, "full": 110_000}[scale])
        return Program("redis", client.command(), client=client)
    add("redis", ["redis-server", "redis-benchmark"], redis)
    return found, missing


def run(measurer, program, environment, folder, stdout):
    """Runs a program to its end, and whatever it leaves behind, by run_measured. Returns its costs."""
    if program.client:
        program.client.prepare()
    costs = folder / "costs.json"
    costs.unlink(missing_ok=True)
    # `env`, so that run_measured itself is neither preloaded nor recorded.
    variables = [f"{name}={value}" for name, value in {**program.environment, **environment}.items()]
    with open(folder / "stderr", "w+b") as stderr:
        process = subprocess.Popen([measurer, costs, "env", *variables, *program.command], stdout=stdout, stderr=stderr,
                                   stdin=subprocess.DEVNULL)
        try:
            if program.client:
                program.client.drive(process)
            process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        cost = json.loads(costs.read_text()) if costs.exists() else {"status": 1 << 8}
        if cost["status"] != 0:
            stderr.seek(0)
            raise Failure(f"{program.command[0]} ended with status {os.waitstatus_to_exitcode(cost['status'])}: "
                          + stderr.read().decode(errors="replace").strip()[-300:])
    return {"cpu_seconds": cost["cpu_ns"] / 1e9, "max_rss_bytes": cost["max_rss_bytes"],
            "helper_cpu_seconds": cost["helper_cpu_ns"] / 1e9, "helper_rss_bytes": cost["helper_rss_bytes"]}
