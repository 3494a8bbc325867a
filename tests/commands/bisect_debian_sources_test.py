"""A bisection over mimalloc as Debian's source packages have it: a commit for each, built by its own build system.

  bisect_debian_sources_test.py HEAPTAPE TRACE

Downloads the sources through the machine's mirror and builds each twice: skipped unless HEAPTAPE_LONG_TESTS is set.
"""
import json
import os
import re
import subprocess
import sys
import tempfile

heaptape, trace = sys.argv[1:3]
if "HEAPTAPE_LONG_TESTS" not in os.environ:
    print("set HEAPTAPE_LONG_TESTS to download and build Debian's sources of mimalloc")
    sys.exit(77)

folder = tempfile.TemporaryDirectory(prefix="heaptape-debian-")
os.chdir(folder.name)
os.environ["XDG_CACHE_HOME"] = folder.name + "/cache"
for name in ("AUTHOR", "COMMITTER"):
    os.environ[f"GIT_{name}_NAME"], os.environ[f"GIT_{name}_EMAIL"] = "Ada Author", "ada@example.org"
os.environ.update(GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_NOSYSTEM="1")


def run(*command, **options):
    return subprocess.run(command, text=True, capture_output=True, **options)


def output(*command):
    done = run(*command)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def git(*command):
    return output("git", "-C", "history", *command)


families = json.loads(output(heaptape, "allocators", "list", "--no-check", "--format", "json"))["families"]
build = next(family["build"] for family in families if family["name"] == "mimalloc")

# Old to new. A mirror may lack a file that its index names, and a release that is not out yet goes on to other versions: what
# can be had is the history.
SOURCES = [("2.0.9", "debian:mimalloc", "bookworm"), ("2.1.9", "debian:mold", "trixie"),
           ("3.0.1", "debian:mimalloc", "trixie"), ("3.5.0", "debian:mold/third-party/mimalloc", "forky")]
os.mkdir("history")
git("init", "-q", "-b", "main")
tags = []
for version, source, release in SOURCES:
    kept = f"{folder.name}/{version}"
    added = run(heaptape, "allocators", "add", f"mimalloc@{version}", "--source", source, "--release", release,
                "--build", f'mkdir {kept} && cp -a . {kept} && {build}')
    if added.returncode != 0:
        moved_on = re.search(rf"has mimalloc [0-9.]+ \(forky\), not {re.escape(version)}", added.stderr)
        assert moved_on or "404" in added.stderr or "Not Found" in added.stderr, added.stderr
        print(f"{version}: not in this mirror")
        continue
    assert f"mimalloc {version} added: built from" in added.stdout, added.stdout
    git("rm", "-rq", "--ignore-unmatch", ".")
    output("cp", "-a", f"{version}/.", "history")
    output("rm", "-rf", "history/out", "history/.pc")
    git("add", "-A", "-f")
    git("commit", "-qm", f"mimalloc {version}")
    git("tag", f"v{version}")
    tags.append(f"v{version}")
assert len(tags) >= 2 and tags[0] == "v2.0.9", tags

common = (trace, "--family", "mimalloc", "--source", "history", "--threshold", "1.02x", "--format", "json")
sweep = json.loads(output(heaptape, "sweep", *common, "--tags", "v*"))
values = {commit["name"]: commit["value"] for commit in sweep["commits"]}
assert list(values) == tags and all(value > 0 for value in values.values()), sweep["commits"]
print({name: f"{value / 2**20:.1f} MiB" for name, value in values.items()})

# The ends of the history, whichever of them needs more.
first_good = values[tags[-1]] < values[tags[0]]
good, bad = (tags[-1], tags[0]) if first_good else (tags[0], tags[-1])
found = run(heaptape, "bisect", *common, "--good", good, "--bad", bad, *(["--first-good"] if first_good else []))
report = json.loads(found.stdout)
if values[bad] < 1.02 * values[good]:
    assert report["end"] == "no_difference" and found.returncode == 1, report["findings"]
else:
    assert report["end"] == "found" and found.returncode == 0, report["findings"]
    limit = 1.02 * values[good]
    at = tags.index(report["first"]["name"])
    assert (values[tags[at]] >= limit) != first_good and (values[tags[at - 1]] >= limit) == first_good, report["findings"]
# All were measured by the sweep.
assert all(commit["replayed_before"] for commit in report["commits"]), report["commits"]
print(*report["findings"], sep="\n")
