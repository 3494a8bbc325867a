"""No command replaces a file unasked, nor ever anything but a regular file.

Usage: outputs_test.py HEAPTAPE MAKE_TRACE BUMP_LIBRARY

Every output option of every command: an existing file stays without --force and is replaced with it; a device, a FIFO, a
socket, a folder and a symbolic link are refused either way, before anything is printed or done.
"""

import json
import os
import pathlib
import re
import socket
import stat
import subprocess
import sys
import tempfile

HEAPTAPE, MAKE_TRACE, BUMP = [os.path.abspath(argument) for argument in sys.argv[1:4]]
# The names of all options that say where a file is written.
OUTPUT_OPTION = re.compile(r"--(?:output|report|chart|issue|log|profile|write-into)\b")


class Folder:
    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": path, "XDG_CACHE_HOME": path + "/cache", "TMPDIR": path, "LC_ALL": "C.UTF-8",
                            "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "HEAPTAPE_DISTRUST": os.environ.get("HEAPTAPE_DISTRUST", "")}

    def run(self, *words):
        return subprocess.run([HEAPTAPE, *words], cwd=self.path, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)

    def must(self, *words, program=HEAPTAPE):
        subprocess.run([program, *words], cwd=self.path, env=self.environment, check=True, capture_output=True)


def prepare(folder):
    folder.must("a.tape", "60", program=MAKE_TRACE)
    dump = subprocess.run([HEAPTAPE, "dump", "a.tape"], cwd=folder.path, check=True, capture_output=True).stdout
    (folder.path / "a.txt").write_bytes(dump)
    (folder.path / "segment.txt").write_bytes(dump.replace(b"#info cpu_count", b"#info segment_number 1\n#info cpu_count", 1))
    folder.must("load", "segment.txt", "-o", "segment.tape")
    folder.must("convert", "a.tape", "--to", "android", "-o", "a.android")
    folder.must("replay", "a.tape", "-a", "bump", "-o", "a.json")
    for words in (["init", "-q", "-b", "main", "source"], ["-C", "source", "-c", "user.name=Ada", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "one"],
                  ["-C", "source", "tag", "v1"],
                  ["-C", "source", "-c", "user.name=Ada", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "two"], ["-C", "source", "tag", "v2"]):
        folder.must(*words, program="git")


HISTORY = ["a.tape", "--family", "copy", "--source", "source", "--build", f"cp {BUMP} liballoc.so", "--library", "liballoc.so"]
BISECT = ["bisect", *HISTORY, "--good", "v1", "--bad", "v2"]  # the two do not differ: exits 1, but writes what it found
SWEEP = ["sweep", *HISTORY, "v1", "v2"]
REPLAY = ["replay", "a.tape", "-a", "bump"]

# (command and option, words before the name of the file, exit status where it works)
CASES = [
    ("load --output", ["load", "a.txt", "-o"], 0),
    ("cut --output", ["cut", "a.tape", "--to", "10s", "-o"], 0),
    ("pack --output", ["pack", "a.tape", "--level", "3", "-o"], 0),
    ("scrub --output", ["scrub", "a.tape", "-o"], 0),
    ("join --output", ["join", "segment.tape", "-o"], 0),
    ("convert --output", ["convert", "a.android", "-o"], 0),
    ("convert --output", ["convert", "a.tape", "--to", "glibc", "-o"], 0),
    ("synth --output", ["synth", "--events", "10K", "-o"], 0),
    ("synth --profile", ["synth", "--like", "a.tape", "--profile"], 0),
    ("extend --output", ["extend", "a.tape", "--days", "0.001", "-o"], 0),
    ("replay --output", [*REPLAY, "-o"], 0),
    ("replay --report", [*REPLAY, "--report"], 0),
    ("report --output", ["report", "a.json", "-o"], 0),
    ("reduce --output", ["reduce", "a.tape", "--bad", "bump", "--good", "glibc", "--min-difference", "1KB", "--max-steps", "1", "-o"], 0),
    ("sweep --output", [*SWEEP, "-o"], 0),
    ("sweep --chart", [*SWEEP, "--chart"], 0),
    ("sweep --issue", [*SWEEP, "--issue"], 0),
    ("bisect --output", [*BISECT, "-o"], 1),
    ("bisect --chart", [*BISECT, "--chart"], 1),
    ("bisect --issue", [*BISECT, "--issue"], 1),
    ("bisect --log", [*BISECT, "--log"], 1),
]
# It would start a network: only that it is refused before.
REFUSED_ONLY = [("lab record --output", ["lab", "record", "-o"])]
# Made in a folder: which files, and the words that name the folder.
FOLDERS = [
    ("lab demo --output", ["lab", "demo", "--output"], ["guard.tape", "results.json", "report.html"]),
    ("lab compare --output", ["lab", "compare", "--output"], ["guard.tape", "live.json", "compare.json", "compare.md", "compare.html"]),
]
# What is written is a region of the file that was named: no --force.
REGION = ("allocators list --write-into", ["allocators", "list", "--no-check", "--write-into"])
# Tested with the recorder.
ELSEWHERE = {"record --output"}


def check(condition, *what):
    if not condition:
        raise AssertionError(" ".join(str(part) for part in what))


def other_things(folder):
    """Names of one of everything that is not a regular file, with what a refusal calls it."""
    path = folder.path
    (path / "target").write_text("kept")
    (path / "folder").mkdir()
    os.symlink("target", path / "link")
    os.symlink("nowhere", path / "dangling")
    os.mkfifo(path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path / "socket"))
    try:
        # Root could replace the system's own.
        os.mknod(path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        device = "null"
    except OSError:
        device = "/dev/null"
    return [("folder", "a folder"), ("link", "a symbolic link"), ("dangling", "a symbolic link"), ("fifo", "a FIFO"), ("socket", "a socket"), (device, "a device")]


def is_refused(folder, words, name, reason):
    path = folder.path / name
    before, names = os.lstat(path), sorted(os.listdir(folder.path))
    content = path.read_bytes() if stat.S_ISREG(before.st_mode) else None
    done = folder.run(*words)
    check(done.returncode == 1 and done.stdout == "", words, done)
    check(f"heaptape: {name}: {reason}\n" == done.stderr, words, done)
    after = os.lstat(path)
    check((before.st_ino, before.st_mode) == (after.st_ino, after.st_mode), words, "was replaced")
    check(content is None or path.read_bytes() == content, words, "was overwritten")
    check(sorted(os.listdir(folder.path)) == names, words, "left something behind")


def check_case(folder, words, status, things):
    out = folder.path / "out"
    done = folder.run(*words, "out")
    check(done.returncode == status and out.is_file(), words, done)
    out.write_text("somebody's work\n")
    is_refused(folder, [*words, "out"], "out", "exists already; give --force to replace it")
    done = folder.run(*words, "out", "--force")
    check(done.returncode == status, words, done)
    check(out.read_bytes() != b"somebody's work\n", words, "was not replaced")
    out.unlink()
    for name, kind in things:
        for force in ([], ["--force"]):
            is_refused(folder, [*words, name, *force], name, f"is {kind}, which is never replaced; choose another name")
    check((folder.path / "target").read_text() == "kept", words)
    check(not list(folder.path.glob("*.part")), words, "left an unfinished file")


def check_folders(folder, things):
    for _, words, names in FOLDERS:
        made = folder.path / "made"
        made.mkdir()
        for name in names:
            (made / name).write_text("somebody's work\n")
            is_refused(folder, [*words, "made"], f"made/{name}", "exists already; give --force to replace it")
            (made / name).unlink()
            os.symlink("../target", made / name)
            is_refused(folder, [*words, "made", "--force"], f"made/{name}", "is a symbolic link, which is never replaced; choose another name")
            (made / name).unlink()
        made.rmdir()
    for _, words in REFUSED_ONLY:
        (folder.path / "out").write_text("somebody's work\n")
        is_refused(folder, [*words, "out"], "out", "exists already; give --force to replace it")
        for name, kind in things:
            is_refused(folder, [*words, name, "--force"], name, f"is {kind}, which is never replaced; choose another name")
        (folder.path / "out").unlink()


def check_region(folder, things):
    out = folder.path / "out"
    out.write_text("before\n<!-- allocators -->\n<!-- /allocators -->\nafter\n")
    done = folder.run(*REGION[1], "out")
    check(done.returncode == 0, done)
    text = out.read_text()
    check(text.startswith("before\n<!-- allocators -->\nObtained") and text.endswith("<!-- /allocators -->\nafter\n"), text)
    out.unlink()
    for name, kind in things:
        is_refused(folder, [*REGION[1], name], name, f"is {kind}, which is never replaced; choose another name")


def check_conventions(folder):
    """What the shell has connected is written to."""
    page = folder.run("report", "a.json", "-o", "-").stdout
    check("<html" in page, page[:100])
    check(folder.run("report", "a.json", "-o", "/dev/stdout").stdout == page, "/dev/stdout")
    check(folder.run("convert", "a.tape", "--to", "android", "-o", "-").stdout == (folder.path / "a.android").read_text(), "convert -o -")
    results = folder.run(*REPLAY, "-o", "/dev/stdout").stdout
    check(json.loads(results.splitlines()[0])["schema_version"] > 0, results[:200])
    done = subprocess.run(["bash", "-c", '"$0" report a.json -o >(cat > copied) && wait $!', HEAPTAPE], cwd=folder.path, env=folder.environment, capture_output=True)
    check(done.returncode == 0 and (folder.path / "copied").read_text() == page, done)


def commands(folder, path=()):
    """Each command's words with the text of its help."""
    text = folder.run(*path, "--help").stdout
    below = re.search(r"^Subcommands:\n((?:  .*\n)+)", text, re.M)
    if path:
        yield " ".join(path), text
    for name in re.findall(r"^  (\w+)", below[1], re.M) if below else []:
        yield from commands(folder, (*path, name))


def check_completeness(folder):
    found = {f"{name} {option}" for name, text in commands(folder) for option in OUTPUT_OPTION.findall(text.split("Example")[0])}
    tested = {case[0] for case in CASES + REFUSED_ONLY + FOLDERS} | {REGION[0]} | ELSEWHERE
    check(found == tested, "options that nobody tests, or tests of none:", sorted(found ^ tested))
    for name, text in commands(folder):
        wants = any(option.rsplit(" ", 1)[0] == name for option in tested - {REGION[0]} - ELSEWHERE)
        check(not wants or "--force" in text, name, "has no --force")


def main():
    with tempfile.TemporaryDirectory(prefix="heaptape-outputs-") as path:
        folder = Folder(path)
        check_completeness(folder)
        prepare(folder)
        things = other_things(folder)
        for _, words, status in CASES:
            check_case(folder, words, status, things)
        check_folders(folder, things)
        check_region(folder, things)
        check_conventions(folder)
    print(f"{len(CASES) + len(REFUSED_ONLY) + len(FOLDERS) + 1} ways to write a file")


main()
