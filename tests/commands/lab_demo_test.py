"""What `./bootstrap demo` runs, in short form and for a user who has no cache folder yet: a relay of a private Tor network is
recorded, replayed on every allocator of the system and reported, and nothing of it is left behind but the results.

Usage: lab_demo_test.py HEAPTAPE
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

HEAPTAPE = pathlib.Path(sys.argv[1]).resolve()


def listening(network):
    """Ports that are listened on at addresses 127.NETWORK.x.y."""
    found = []
    for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, state = line.split()[1], line.split()[3]
        address = bytes.fromhex(local.split(":")[0])[::-1]
        if state == "0A" and address[:2] == bytes([127, network]):
            found.append(".".join(map(str, address)) + ":" + str(int(local.split(":")[1], 16)))
    return found


def processes_of(folder):
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            if str(folder) in words + os.readlink(process / "cwd"):
                found.append(f"{process.name}: {words}")
        except OSError:  # gone, or a zombie
            pass
    return found


def main():
    with tempfile.TemporaryDirectory(prefix="heaptape-demo-") as name:
        folder = pathlib.Path(name)
        demo, cache = folder / "demo", folder / "cache"
        environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "HOME": str(folder)}
        with open(folder / "stdout", "w+") as stdout, open(folder / "stderr", "w+") as stderr:
            running = subprocess.Popen([HEAPTAPE, "lab", "demo", "--output", demo, "--seconds", "45", "--relays", "20", "--interval", "10",
                                        "--clients", "1"], env=environment, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
            network, ports = None, []
            while running.poll() is None:
                try:
                    network = json.loads((demo / "network" / "lab.json").read_text())["instance"]
                    ports = listening(network) or ports
                except (OSError, ValueError):  # not yet, or no more
                    pass
                time.sleep(0.1)
        printed, talk = (folder / "stdout").read_text(), (folder / "stderr").read_text()
        if running.returncode != 0:
            log = demo / "network" / "nodes" / "guard1" / "log"
            raise AssertionError(f"status {running.returncode}\n{printed}{talk}{log.read_text()[-3000:] if log.exists() else ''}")
        # That it was looked for in the right place.
        assert ports, "the network's ports were never seen"

        # The recording, and what was said of the relay.
        tape = demo / "guard.tape"
        assert re.search(rf"^{re.escape(str(tape))}: tor, [\d.,]+ [kM] events in (?:\d+ min )?[\d.]+ s, recorded under glibc [\d.]+$", printed, re.M), printed
        assert re.search(r"^relay under glibc.*: [\d.]+ MiB anonymous at the end, [\d.]+ MiB peak$", talk, re.M), talk
        requests = re.search(r"directory requests: (\d+) ", talk)
        assert requests and int(requests[1]) > 0, talk
        subprocess.run([HEAPTAPE, "verify", tape], check=True, stdout=subprocess.DEVNULL)

        # A row for each allocator that the system has, each of them with figures.
        known = json.loads(subprocess.run([HEAPTAPE, "allocators", "list", "--no-check", "--format", "json"], env=environment, check=True, capture_output=True).stdout)
        expected = {(row["family"], row["version"]) for row in known["allocators"] if row["state"] == "installed" and row["family"] != "bump"}
        runs = json.loads((demo / "results.json").read_text())["runs"]
        assert len(expected) >= 4 and {(run["allocator"], run["version"]) for run in runs} == expected, (expected, runs)
        for run in runs:
            assert run["error"] is None and run["peak_rss_bytes"] > 1 << 20, run
            assert re.search(rf"^{re.escape(run['allocator'])} +{re.escape(run['version'])} +[\d.]+ MiB ", printed, re.M), (run["allocator"], printed)
        assert re.search(r"^recorded process \(glibc [\d.]+\): peak [\d.]+ MiB.*; replay under glibc [\d.]+: peak [\d.]+ MiB \([+-]?[\d.]+ %\)",
                         printed, re.M), printed

        report = demo / "report.html"
        assert printed.splitlines()[-1] == f"report: {report}", printed
        assert "<html" in report.read_text() and report.stat().st_size > 100_000
        assert list((cache / "heaptape" / "lab").iterdir()), "the relays' keys were not kept"

        # Nothing is left.
        assert sorted(path.name for path in demo.iterdir()) == ["guard.tape", "report.html", "results.json"], list(demo.iterdir())
        assert not processes_of(folder), processes_of(folder)
        assert not listening(network), listening(network)


main()
