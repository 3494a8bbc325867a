"""What bench/scorecard runs programs under: nothing, heaptape, heaptrack, and peers named on the command line."""

import json
import os
import pathlib
import resource
import shlex
import shutil
import statistics
import subprocess
import time

from score_programs import Failure, run

HEAPTRACK = ["/usr/lib/heaptrack/libheaptrack_preload.so", "/usr/lib/x86_64-linux-gnu/heaptrack/libheaptrack_preload.so"]


class Recorder:
    """A preloaded library. `{output}` in its environment's values is where its recording goes."""

    def __init__(self, name, library=None, environment=None, prepare=None, replay=None):
        self.name = name
        self.environment = {**({"LD_PRELOAD": str(library)} if library else {}), **(environment or {})}
        self.prepare, self.replay = prepare, replay  # shell commands on {output}, for those that can replay

    def environment_for(self, output):
        return {key: value.replace("{output}", str(output)) for key, value in self.environment.items()}

    def run_on(self, command, output):
        """CPU seconds of a shell command on a recording."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command.replace("{output}", shlex.quote(str(output))), shell=True, capture_output=True)
        if done.returncode != 0:
            raise Failure(f"{self.name}: {command} ended with status {done.returncode}: {done.stderr.decode(errors='replace')[-300:]}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def heaptape_recorder(library):
    return Recorder("heaptape", library, {"HEAPTAPE_OUTPUT": "{output}", "HEAPTAPE_OPTIONS": "replace=1;"})


def heaptrack_recorder():
    """None where Debian's package is not installed. Raw output, without the interpreter that its script runs beside it."""
    library = next((path for path in HEAPTRACK if os.path.exists(path)), None)
    return library and Recorder("heaptrack", library, {"DUMP_HEAPTRACK_OUTPUT": "{output}"})


def peer_recorder(text):
    """NAME=LIBRARY, or the path of a JSON file (bench/README.md)."""
    if "=" in text:
        name, _, library = text.partition("=")
        peer = {"name": name, "library": library}
    else:
        try:
            peer = json.loads(pathlib.Path(text).read_text())
        except (OSError, ValueError) as error:
            raise Failure(f"--peer {text}: {error}; give NAME=LIBRARY or a JSON file as in bench/README.md")
    unknown = set(peer) - {"name", "library", "environment", "prepare", "replay"}
    if unknown or not {"name", "library"} <= set(peer):
        raise Failure(f"--peer {text}: a peer has name and library, and may have environment, prepare and replay"
                      + (f"; not {', '.join(sorted(unknown))}" if unknown else ""))
    if not os.path.exists(peer["library"]):
        raise Failure(f"--peer {text}: {peer['library']}: no such library")
    return Recorder(**peer)


def recorded_bytes(output):
    """Of a recording whose files begin with that path, or lie in the folder of that name."""
    return sum(file.stat().st_size for path in output.parent.glob(output.name + "*")
               for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def remove(output):
    for path in output.parent.glob(output.name + "*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


LEAST_ROUNDS = 3


def record(measurer, program, recorders, rounds, seconds, folder, say):
    """Runs a program under each recorder in turns: fewer rounds where they take longer than `seconds`. Returns the costs of all runs by recorder, what the program said of
    its own calls, and the paths of the last recordings."""
    costs = {recorder.name: [] for recorder in recorders}
    outputs, calls = {}, None
    start = time.monotonic()
    for number in range(rounds):
        if number >= LEAST_ROUNDS and (time.monotonic() - start) * (number + 1) / number > seconds:
            say(f"{program.name}: no more than {number} rounds in {seconds} s")
            break
        for recorder in recorders:
            output = outputs[recorder.name] = folder / f"{program.name}.{recorder.name}.recording"
            remove(output)
            with open(folder / "stdout", "w+b") as stdout:
                cost = run(measurer, program, recorder.environment_for(output), folder, stdout)
                if program.counts_calls:
                    stdout.seek(0)
                    calls, cost["call_cpu_ns"] = map(int, stdout.read().split())
            costs[recorder.name].append(cost)
            say(f"{program.name}, round {number + 1} of {rounds}: {recorder.name} {cost['cpu_seconds']:.2f} s of CPU")
    return costs, calls, outputs


def compare(costs, events):
    """Each recorder's figures: medians over the rounds, each run against the bare run of its round."""
    figures = {}
    for name, runs in costs.items():
        pairs = list(zip(runs, costs["bare"]))

        def median(of):
            return statistics.median(of(recorded, bare) for recorded, bare in pairs)
        figures[name] = {"cpu_seconds": median(lambda r, b: r["cpu_seconds"]), "max_rss_bytes": median(lambda r, b: r["max_rss_bytes"])}
        if name == "bare":
            continue
        figures[name].update(
            cpu_ratio=median(lambda r, b: r["cpu_seconds"] / b["cpu_seconds"]),
            added_ns_per_event=median(lambda r, b: (r["cpu_seconds"] - b["cpu_seconds"]) * 1e9 / events),
            added_rss_bytes=median(lambda r, b: r["max_rss_bytes"] - b["max_rss_bytes"]),
            cpu_ratio_of_rounds=[recorded["cpu_seconds"] / bare["cpu_seconds"] for recorded, bare in pairs])
        if all("call_cpu_ns" in run for run in runs):
            # Of the calls alone, without starting the process; the best of the rounds, for a bound that holds on busy machines.
            figures[name]["call_cpu_ratio"] = min(r["call_cpu_ns"] for r in runs) / min(b["call_cpu_ns"] for b in costs["bare"])
        if any(run.get("helper_cpu_seconds") for run in runs):
            figures[name]["helper_ns_per_event"] = median(lambda r, b: r["helper_cpu_seconds"] * 1e9 / events)
            figures[name]["helper_rss_bytes"] = median(lambda r, b: r["helper_rss_bytes"])
    return figures
