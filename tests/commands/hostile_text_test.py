"""What strangers wrote reaches terminal and files as text, and as nothing else.

Usage: hostile_text_test.py HEAPTAPE PROJECT_FOLDER BUMP_LIBRARY

A trace, results, commits, file names and words of the command line hold escape sequences, forged lines, HTML, formulas,
bytes that are not UTF-8 and characters that turn the direction of writing. Every command is run on them.
"""

import csv
import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

HEAPTAPE, PROJECT, BUMP = [os.path.abspath(argument) for argument in sys.argv[1:4]]
# Steers a terminal, begins a line of heaptape's, is HTML, Markdown and a formula, and is not UTF-8.
TEXT = "=cmd|' /C calc'!A0\x1b]0;owned\x07\x1b[2J\nheaptape: forged: all is well\r\t<script>alert(1)</script>|`[x](http://evil)\x7f\u009b31m\u202e\u2028\ufeff"
BYTES = TEXT.encode() + b"\x80\xc3("
# As TEXT, where a slash ends a name.
NAME = BYTES.replace(b"/", b"")
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


def check(condition, *what):
    if not condition:
        raise AssertionError(" ".join(str(part)[:3000] for part in what))


class Runner:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": folder, "XDG_CACHE_HOME": folder + "/cache", "TMPDIR": folder, "LC_ALL": "C.UTF-8",
                            "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "HEAPTAPE_DISTRUST": os.environ.get("HEAPTAPE_DISTRUST", "")}
        self.ran = set()

    def harmless(self, data, where):
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise AssertionError(f"{where}: not UTF-8: {data[max(0, error.start - 60):error.end + 20]}") from None
        unseen = UNSEEN.search(text)
        check(not unseen, where, "holds", unseen and repr(text[max(0, unseen.start() - 60):unseen.end() + 20]))
        check(not re.search(r"^\s{0,1}heaptape: forged", text, re.M), where, "has a forged line:", text)
        return text

    def run(self, *words, made=(), status=None, text=None):
        """Runs a command; `made` are the files that it writes. Returns what it printed."""
        named = [word for word in words if isinstance(word, str)]
        self.ran.add(" ".join(named[:2]) if named and named[0] in ("lab", "allocators") else named[0] if named else "")
        done = subprocess.run([HEAPTAPE, *words], cwd=self.folder, env=self.environment, input=text or b"", capture_output=True)
        check(done.returncode in ((0, 1, 2, 3, 125, 128) if status is None else (status,)), words, done)
        printed, said = self.harmless(done.stdout, (words, "stdout")), self.harmless(done.stderr, (words, "stderr"))
        check(not made or done.returncode in (0, 1) and (self.folder / os.fsdecode(made[0])).exists(), words, done)
        for name in made:
            path = self.folder / (name if isinstance(name, str) else os.fsdecode(name))
            self.harmless(path.read_bytes(), (words, name))
        return printed, said


def is_markdown(text, where):
    check("alert(1)" in text, where, "does not show the text:", text)
    text = re.sub(r"^(`{3,})[^`\n]*\n.*?^\1$", "", text, flags=re.S | re.M)  # in a block of code nothing means anything
    check(not re.search(r"(?<!\\)<script", text), where, "holds HTML:", text)
    check(not re.search(r"(?<!\\)\[x", text), where, "holds a link:", text)


def is_csv(text, where):
    rows = list(csv.reader(io.StringIO(text)))
    check(len({len(row) for row in rows}) == 1 and len(rows) > 1, where, rows)
    check(not any(cell[:1] in ("=", "@", "\t", "\r") for row in rows for cell in row), where, rows)
    check(any("=cmd|" in cell for row in rows for cell in row), where, rows)


def dump_of(program):
    """A trace as text whose every name is hostile: two threads, stacks, memory that grows."""
    escaped = "".join(f"\\{byte:03o}" for byte in program)
    lines = ["#heaptape dump 1"]
    for field in ("program", "c_library", "allocator", "allocator_version", "allocator_path", "allocator_build_id", "kernel", "heaptape_version"):
        lines.append(f"#info {field} {escaped}")
    lines += ["#info time_resolution_ns 1000000", "#info cpu_count 2", "#info page_bytes 4096", "#info memory_bytes 1073741824", "#info stack_sample_bytes 4096",
              f"#module {escaped} {escaped}"]
    for number in range(600):
        lines += [f"0 malloc {number} 9000 0 -", f"#stack {number} 0+4096 0+8192"]
        if number % 20 == 0:
            lines += [f"- time - {(number + 1) * 10_000_000} 0 -",
                      f"#resident {(number + 1) * 10_000_000} {number} {9000000 + number * 9000} {9000000 + number * 9000} 0 {9000000 + number * 9000} 0 0"]
        if number % 3 == 2:
            lines.append(f"0 free {number - 1} 0 0 -")
    return ("\n".join(lines) + "\n").encode()


def made_hostile(value, keep=("verdict",), key=None):
    if isinstance(value, dict):
        return {name if key != "tunables" else TEXT: made_hostile(each, keep, name) for name, each in value.items()}
    if isinstance(value, list):
        return [made_hostile(each, keep, key) for each in value]
    return TEXT if isinstance(value, str) and key not in keep else value


def traces(r, tape):
    dump = dump_of(BYTES)
    r.run("load", "-o", tape, text=dump, status=0)
    r.run("load", "-o", tape, "--force", text=dump.replace(b"malloc", b"mal\x1b[2Jloc", 1))
    r.run("load", b"no" + NAME, "-o", b"x" + NAME)
    r.run("load", "-o", tape, text=dump)
    damaged = b"damaged" + NAME
    data = bytearray((r.folder / os.fsdecode(tape)).read_bytes())
    for place in range(len(data) * 2 // 3, len(data) * 2 // 3 + 300):
        data[place] ^= 0x55
    (r.folder / os.fsdecode(damaged)).write_bytes(data)
    for path in (tape, damaged, b"no" + NAME, b"junk" + NAME):
        if path.startswith(b"junk"):
            (r.folder / os.fsdecode(path)).write_bytes(BYTES * 40)
        for words in (["inspect"], ["inspect", "--format", "json"], ["verify"], ["verify", "--format", "json"], ["dump"], ["dump", "--format", "csv"],
                      ["dump", "--format", "json-lines"]):
            printed, _ = r.run(*words, path)
            if "json" in words and path == tape:
                check("alert(1)" in printed, words, printed)
                json.loads(printed)
        out = b"out" + NAME
        for words in (["cut", "--to", "1s"], ["pack"], ["scrub"], ["scrub", "--privacy", "1"], ["join"], ["extend", "--days", "0.001"], ["synth", "--profile", "shape.json", "--like"]):
            r.run(*words, path, "-o", out, "--force")
        r.run("join", path, path, "-o", out, "--force")
        for form in ("heaptrack", "android", "glibc", "malloc-trace-replay"):
            _, said = r.run("convert", path, "--to", form, "-o", "converted", "--force")
            if path == tape and form in ("heaptrack", "android"):
                r.harmless((r.folder / "converted").read_bytes(), form)
        r.run("convert", path, "--to", "heaptrack", "-o", "-")
        r.run("convert", path, "-o", out, "--force")
    # A recording of another tool with a hostile name in it.
    (r.folder / "foreign").write_bytes(b"v 10400 3\nX " + NAME.replace(b"\n", b" ") + b"\n+ 10 0 1000\n- 1000\nz " + BYTES + b"\n")
    r.run("convert", "foreign", "-o", b"foreign" + NAME, "--force")
    r.run("inspect", "--format", "json", b"foreign" + NAME)
    # `pack` says what it wrote; it exists already.
    r.run("pack", tape, "-o", tape)
    r.run("synth", "--events", "1K", "-o", b"synth" + NAME)
    r.run("synth", "--from-profile", b"junk" + NAME, "-o", "x.tape")


def replays(r, tape):
    library = b"lib" + NAME.replace(b":", b"") + b".so"
    os.symlink(BUMP, r.folder / os.fsdecode(library))
    words = ["replay", tape, "-a", "bump", "-a", "glibc", "--why"]
    r.run(*words, "-o", "results.json", "--report", "report.html", made=["results.json", "report.html"], status=0)
    page = (r.folder / "report.html").read_text()
    check("<script>alert" not in page and "alert(1)" in page, "report.html")
    for form in ("table", "json", "csv", "markdown", "prometheus"):
        printed, _ = r.run(*words, "-f", form, status=0)
        if form == "markdown":
            is_markdown(printed, form)
        if form == "csv":
            is_csv(printed, form)
    r.run("replay", tape, "-a", b"./" + library)
    r.run("replay", tape, "-a", NAME)
    r.run("replay", tape, "-a", b"./no" + library)
    r.run("replay", tape, "-a", "glibc:" + TEXT.replace("\n", "") + "=1")
    r.run("replay", tape, tape, "-a", "bump", "--baseline", NAME)
    r.run("check", tape, "-a", "bump", "--max", "1GB", "--build", r"printf '\033]0;x\007\200\033[2J\n'; printf 'heaptape\033[1m' >&2")
    r.run("check", tape, "-a", "bump", "--max", "1GB", "--build", "exit 1")
    r.run("check", tape, "-a", b"./no" + library, "--max", "1GB")
    r.run("reduce", tape, "--bad", "bump", "--good", "glibc", "--min-difference", "1KB", "--max-steps", "3", "-o", b"small" + NAME)
    r.run("reduce", tape, "--bad", "bump", "--good", "glibc", "--min-difference", "1KB", "--max-steps", "3", "-o", b"smaller" + NAME, "-f", "json")
    r.run("reduce", tape, "--bad", "bump", "--good", "bump", "-o", b"none" + NAME)


def results(r):
    hostile = made_hostile(json.loads((r.folder / "results.json").read_text()))
    hostile["runs"][0]["error"] = TEXT
    hostile["runs"][0]["notes"] = [TEXT]
    hostile["traces"][0]["complete"] = False
    path = b"results" + NAME
    (r.folder / os.fsdecode(path)).write_text(json.dumps(hostile))
    larger = json.loads(json.dumps(hostile))
    for run in larger["runs"]:
        run["steady_rss_bytes"] *= 3
    (r.folder / "larger.json").write_text(json.dumps(larger))
    page, _ = r.run("report", path, "-o", "-", status=0)
    check("<script>alert" not in page and "\\u003cscript>alert(1)" in page, "report")
    embedded = json.loads(re.search(r'<script type="application/json" id="results">(.*?)</script>', page, re.S)[1])

    def texts(value):
        if isinstance(value, dict):
            for key, each in value.items():
                yield key
                yield from texts(each)
        elif isinstance(value, list):
            for each in value:
                yield from texts(each)
        elif isinstance(value, str):
            yield value
    for text in texts(embedded):
        check(not UNSEEN.search(text) and "\n" not in text, "the page shows", repr(text))
    r.run("report", path, path, "-o", b"page" + NAME, made=[b"page" + NAME], status=0)
    r.run("report", b"junk" + NAME, "-o", "x.html", status=1)
    for form in ("table", "json", "markdown"):
        printed, _ = r.run("compare", path, "larger.json", "--max", "steady=+5%", "-f", form, status=3)
        if form == "markdown":
            is_markdown(printed, "compare")
    r.run("compare", path, "larger.json", "--max", NAME)
    r.run("compare", path, b"no" + NAME)
    for form in ("table", "markdown"):
        printed, _ = r.run("lab", "days", path, "--days", "0.01", "-f", form, status=0)
        if form == "markdown":
            is_markdown(printed, "lab days")
    (r.folder / "figures.csv").write_bytes(b"timestamp,allocator,relays,mean_rss_kb\n2024-01-01T00:00:00," + BYTES.replace(b"\n", b"") + b",1,x\n")
    r.run("lab", "days", path, "--published", "figures.csv")


def histories(r, tape):
    def git(*words, **environment):
        subprocess.run(["git", "-C", "source", *words], cwd=r.folder, env={**r.environment, **environment}, check=True, capture_output=True)
    (r.folder / "source").mkdir()
    git("init", "-q", "-b", "main")
    author = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in
              (("NAME", "Eve" + TEXT.replace("\n", "").replace("<", "").replace(">", "")), ("EMAIL", "eve@example.org"), ("DATE", "2024-01-01T00:00:00"))}
    for number, name in enumerate(("v1", "`</details>", "v2")):
        (r.folder / "source" / "number").write_text(str(number))
        git("add", "-A")
        (r.folder / "message").write_bytes(BYTES.replace(b"\n", b" ") * 3 + b"\n\nbody\n")
        git("-c", "i18n.commitEncoding=UTF-8", "commit", "-q", "-F", "../message", **author)
        git("tag", name)
    words = [tape, "--family", "copy", "--source", "source", "--library", "liballoc.so", "--build",
             f"test $(cat number) = 1 && {{ printf '\\033]0;x\\007\\n  cc: \\200 error\\n'; exit 1; }}; cp {BUMP} liballoc.so"]
    files = ["-o", "history.json", "--chart", "chart.svg", "--issue", "issue.md", "--force"]
    names = ["history.json", "chart.svg", "issue.md"]
    for form in ("table", "json", "csv", "markdown"):
        printed, _ = r.run("sweep", *words, "v1", "`</details>", "v2", "-f", form, *files, made=names)
        if form == "csv":
            is_csv(printed, "sweep")
        if form == "markdown":
            is_markdown(printed, "sweep")
        r.run("bisect", *words, "--good", "v1", "--bad", "v2", "-f", form, *files, "--log", "log", made=[*names, "log"])
    check("<script" not in (r.folder / "chart.svg").read_text(), "chart.svg")
    is_markdown((r.folder / "issue.md").read_text(), "issue.md")
    r.run("sweep", *words, NAME)
    words[2] = NAME
    r.run("sweep", *words, "v1", "v2")
    r.run("bisect", tape, "--family", "mimalloc", "--source", b"no" + NAME, "--good", "a", "--bad", "b")


def recordings(r):
    program, tape = r.folder / os.fsdecode(b"program" + NAME), b"recorded" + NAME
    program.write_text("#!/bin/sh\nread line\n")
    program.chmod(0o755)
    r.run("record", "-v", "-o", b"quick" + NAME, "--", b"./" + os.fsencode(program.name))
    r.run("record", "-o", b"quick" + NAME, "--", NAME)
    r.run("record", "-o", b"no" + NAME + b"/x", "--", "true")
    running = subprocess.Popen([HEAPTAPE, "record", "-o", tape, "--", "sh", "-c", "echo $$; read line"], cwd=r.folder, env=r.environment,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        pid = running.stdout.readline().decode().strip()
        for words in (["status"], ["flush"], ["status", "--format", "json"]):
            printed, _ = r.run("ctl", pid, *words, status=0)
            check("recorded=cmd|" in printed, printed)
    finally:
        _, said = running.communicate(b"\n", timeout=600)
    r.harmless(said, "record")
    r.run("ctl", "1", "status")


def others(r):
    for words in (["allocators", "list", "--no-check"], ["allocators", "list", "--no-check", "-f", "json"], ["allocators", "list", "--no-check", "-f", "markdown"],
                  ["allocators", "list", "--no-check", "--write-into", b"no" + NAME], ["allocators", "add", NAME], ["allocators", "add", b"glibc@" + NAME, "--release", NAME],
                  ["allocators", "show", NAME], ["lab", "status", "--dir", NAME], ["lab", "status", "--dir", NAME, "--format", "json"], ["lab", "down", "--dir", NAME],
                  ["lab", "load", "--dir", NAME, "--minutes", "0.01"], ["lab", "compare", "--replay-only", "--output", NAME],
                  ["lab", "record", "--allocator", NAME, "-o", b"lab" + NAME], ["lab", "relay", "--relay", "a", "--minutes", "0.1", "--dir", b"report.html/" + NAME],
                  ["lab", "up", "--dir", b"no\xff/such" + NAME, "--relays", NAME], ["lab", "up", "--dir", b"network\xff", "--relays", "0"], ["lab", "demo", "--output", b"junk" + NAME],
                  ["manual", "bash"], ["manual", "man", NAME], ["inspect", b"--" + NAME], ["inspect", "a", NAME], [NAME], ["replay", "x", "--format", NAME], ["--help"], ["--version"]):
        r.run(*words)
    # A network's state and a comparison's results lie in files too.
    (r.folder / "compared").mkdir()
    (r.folder / "compared" / "live.json").write_text(json.dumps({"duration_ns": 1, "relays": [
        {"allocator": TEXT, "recorded": True, "peak_bytes": 1, "time_ns": [1], "anonymous_bytes": [1]}]}))
    r.run("lab", "compare", "--replay-only", "--output", "compared", status=1)
    # What `allocators add` kept of somebody's package.
    entries = list((r.folder / "cache").rglob("*.json"))
    check(entries, "no results were kept")


def every_command(r):
    def below(*path):
        text = subprocess.run([HEAPTAPE, *path, "--help"], capture_output=True, check=True, text=True).stdout
        found = re.search(r"^Subcommands:\n((?:  .*\n)+)", text, re.M)
        return re.findall(r"^  (\w+)", found[1], re.M) if found else []
    wanted = {name for name in below() if name not in ("lab", "allocators")}
    wanted |= {f"{group} {name}" for group in ("lab", "allocators") for name in below(group)}
    check(wanted <= r.ran, "never run:", sorted(wanted - r.ran))


def no_other_way():
    """Nothing in the commands goes around the functions that escape."""
    for path in (pathlib.Path(PROJECT) / "replayer").rglob("*.cc"):
        text = path.read_text()
        if "worker" not in path.parts and path.name != "external_text.cc":
            check(not re.search(r"\.dump\(", text), path, "writes JSON without JsonText")
        if path.parent.name == "commands" and path.name not in ("talk.cc", "progress.cc", "record.cc"):
            check(not re.search(r"std::cerr|FPrintF\(stderr|fputs\([^;]*stderr|fprintf\(stderr", text), path, "writes to stderr without talk.h")


def main():
    no_other_way()
    with tempfile.TemporaryDirectory(prefix="heaptape-hostile-") as folder:
        r = Runner(folder)
        tape = b"trace" + NAME
        traces(r, tape)
        replays(r, tape)
        results(r)
        histories(r, tape)
        recordings(r)
        others(r)
        every_command(r)
    print(f"{len(r.ran)} commands")


main()
