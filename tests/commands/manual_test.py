"""The man pages and completions say what --help says, in a form that man and the shells take.

Usage: manual_test.py HEAPTAPE
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HEAPTAPE = str(pathlib.Path(sys.argv[1]).resolve())


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, **options)
    assert done.returncode == 0, f"{command}: status {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def help_of(*words):
    """The subcommands and the long options that --help lists."""
    text = run(HEAPTAPE, *words, "--help")
    commands = re.findall(r"^  (\w[\w-]*) ", text.split("Subcommands:")[1].split("\n\n")[0], re.M) if "Subcommands:" in text else []
    return commands, re.findall(r"^  (?:-\w,)?(--[\w-]+)", text.split("Subcommands:")[0], re.M)


def check_pages(folder, commands):
    run(HEAPTAPE, "manual", "man", folder)
    pages = {path.name: path for path in pathlib.Path(folder).iterdir()}
    assert set(pages) == {"heaptape.1"} | {f"heaptape-{command}.1" for command in commands}, pages
    for name, path in pages.items():
        # Wide enough that no word is broken; what groff has to complain of comes on stderr.
        done = subprocess.run(["man", "--warnings=w", "-E", "UTF-8", "-l", str(path)], capture_output=True, text=True,
                              env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "200", "MANPAGER": "cat", "MAN_KEEP_FORMATTING": ""})
        assert done.returncode == 0 and not done.stderr, f"{name}: {done.stderr}"
        for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "EXAMPLES", "EXIT STATUS", "SEE ALSO"):
            assert re.search(rf"^{section}$", done.stdout, re.M), f"{name} has no {section}"
        words = [] if name == "heaptape.1" else [name[len("heaptape-"):-len(".1")]]
        for group in [words] + [words + [command] for command in help_of(*words)[0] if words]:
            for option in help_of(*group)[1]:
                assert option in done.stdout, f"{name} does not name {option} of {group}"
    return len(pages)


def bash(script, line):
    words = line.split(" ")
    quoted = " ".join(f"'{word}'" for word in words)
    return run("bash", "--norc", "-c",
               f'source "{script}"; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _heaptape; printf "%s\\n" "${{COMPREPLY[@]}}"').split()


def zsh(script, line):
    words = line.split(" ")
    quoted = " ".join(f"'{word}'" for word in words)
    offered = run("zsh", "-fec", f'_describe() {{ print -l -- $entries }}; _files() {{ }}; _normal() {{ print -l command }}\n'
                  f'words=({quoted}); CURRENT={len(words)}; complete_it() {{ source "{script}" }}; complete_it').split("\n")
    return [entry.split(":")[0] for entry in offered if entry.startswith(words[-1])]


def fish(script, line):
    return [entry.split("\t")[0] for entry in run("fish", "--no-config", "-c", f'source "{script}"; complete -C "{line}"').splitlines()]


def check_shell(shell, complete, folder):
    script = pathlib.Path(folder) / shell
    script.write_text(run(HEAPTAPE, "manual", shell))
    run(shell, "-n", str(script))
    for line, wanted, unwanted in (("heaptape re", {"record", "replay", "report", "reduce"}, {"inspect"}),
                                   ("heaptape replay --al", {"--allocator"}, {"--output"}),
                                   ("heaptape lab lo", {"load"}, {"list"}),
                                   ("heaptape allocators ", {"list", "add", "show"}, {"record"})):
        offered = set(complete(script, line))
        assert wanted <= offered and not unwanted & offered, f"{shell}, {line}: {sorted(offered)}"
    for words in ([command] for command in help_of()[0]):
        missing = set(help_of(*words)[1]) - set(complete(script, f"heaptape {words[0]} --"))
        assert not missing, f"{shell}, heaptape {words[0]}: {missing} not offered"


def main():
    for program in ("man", "bash", "zsh", "fish"):
        assert shutil.which(program), f"{program} is needed: ./bootstrap deps test"
    with tempfile.TemporaryDirectory(prefix="heaptape-manual-") as folder:
        os.environ["HOME"] = folder
        (pathlib.Path(folder) / "pages").mkdir()
        pages = check_pages(folder + "/pages", help_of()[0])
        for shell, complete in (("bash", bash), ("zsh", zsh), ("fish", fish)):
            check_shell(shell, complete, folder)
    print(f"{pages} man pages, completions of 3 shells")


main()
