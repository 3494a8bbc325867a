"""Runs the commands of a document and checks what it says they print.

Usage: docs_test.py BIN_DIR LIBRARY_DIR SAMPLES_DIR DOCUMENT.md...

A block that begins with ```sh run is run, one with ```sql run by DuckDB (from the folder that HEAPTAPE_DUCKDB names), all of
one document's in one new folder, where guard.tape is the smallest sample. A ```text output block after it is what was printed: "..." stands for anything within a line, and for any
lines where it is alone on one. In blocks that begin with ```sh or are indented, which are not run, each heaptape
command must exist and each of its options must be in its help.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```$", re.M | re.S)


def blocks(text):
    """(line, kind, content) of each fenced and each indented block."""
    for match in FENCE.finditer(text):
        indent = len(match.group(1))
        content = "\n".join(line[indent:] for line in match.group(3).splitlines())
        yield text.count("\n", 0, match.start()) + 1, match.group(2).strip(), content
    outside = FENCE.sub(lambda match: "\n" * match.group(0).count("\n"), text)
    for match in re.finditer(r"(?:^    \S.*\n)+", outside, re.M):
        yield text.count("\n", 0, match.start()) + 1, "indented", re.sub(r"^    ", "", match.group(0), flags=re.M)


def matches(pattern, printed):
    expression = ""
    for line in pattern.strip("\n").split("\n"):
        expression += r"(?:.*\n)*?" if line.strip() == "..." else ".*".join(re.escape(part) for part in line.split("...")) + r"\n"
    return re.fullmatch(expression, printed.rstrip("\n") + "\n") is not None


class Help:
    """What `heaptape COMMAND --help` lists, asked once each."""

    def __init__(self, program):
        self.program, self.known = program, {}

    def of(self, words):
        if words not in self.known:
            done = subprocess.run([self.program, *words, "--help"], capture_output=True, text=True)
            self.known[words] = done.stdout if done.returncode == 0 else None
        return self.known[words]

    def complaint(self, line):
        """What is wrong with one line of a shell script that calls heaptape, or None."""
        for call in re.findall(r"(?:^|[|;&(]|\bsudo |\$\()\s*(?:\S*/)?heaptape ([^|;&()#]*)", line):
            words = call.split(" -- ")[0].split()
            if not words or words[0].startswith(("-", "COMMAND", "<")):
                continue
            text = self.of((words[0],))
            if text is None:
                return f"no command {words[0]}"
            rest = words[1:]
            if rest and re.search(rf"^  {re.escape(rest[0])}  ", text.split("Subcommands:")[-1], re.M) and "Subcommands:" in text:
                text = self.of((words[0], rest[0]))
            for word in rest:
                option = re.match(r"-{1,2}[a-zA-Z][\w-]*", word)
                if option and not re.search(rf"(?:^|[\s,]){re.escape(option.group(0))}(?![\w-])", text, re.M):
                    return f"heaptape {words[0]} has no option {option.group(0)}"
        return None


def check(document, program, environment, samples):
    text = document.read_text()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="heaptape-docs-"))
    environment = {**environment, "HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache"), "TMPDIR": str(folder)}
    shutil.copy(samples / "guard-small.tape", folder / "guard.tape")
    help_text, printed, ran, looked_at, wrong = Help(program), None, 0, 0, []
    try:
        for line, kind, content in sorted(blocks(text)):
            where = f"{document.name}:{line}"
            if kind in ("sh run", "sql run"):
                command = ["bash", "-e", "-o", "pipefail", "-c", content]
                if kind == "sql run":
                    command = ["node", os.environ["HEAPTAPE_DUCKDB"] + "/run.mjs"]
                done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, input=content if kind == "sql run" else "")
                printed = done.stdout
                ran += 1
                # `head` ends the command before it in a pipe.
                if done.returncode not in (0, 141):
                    wrong.append(f"{where}: status {done.returncode}\n{content}\n{done.stdout}{done.stderr}")
            elif kind == "text output":
                if printed is None or not matches(content, printed):
                    wrong.append(f"{where}: is not what was printed:\n{content}\n--- but:\n{printed}")
            elif kind in ("sh", "indented", ""):
                for command in re.sub(r"\\\n\s*", "", content).splitlines():
                    looked_at += "heaptape " in command
                    if complaint := help_text.complaint(command.removeprefix("$ ")):
                        wrong.append(f"{where}: {complaint}: {command}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{document.name}: {ran} blocks run, {looked_at} commands looked up")
    return wrong


def main():
    bin_dir, library_dir, samples = [pathlib.Path(argument).resolve() for argument in sys.argv[1:4]]
    environment = {"PATH": f"{bin_dir}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8", "LD_LIBRARY_PATH": str(library_dir),
                   "HEAPTAPE_DISTRUST": os.environ.get("HEAPTAPE_DISTRUST", "")}
    wrong = []
    for name in sys.argv[4:]:
        wrong += check(pathlib.Path(name).resolve(), bin_dir / "heaptape", environment, samples)
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
