#!/usr/bin/env python3
"""A trace as heaptrack's data, read by heaptrack's own programs, and what they make of it read back.

    heaptrack_tools_test.py HEAPTAPE SOURCE_FOLDER
"""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

INTERPRET = "/usr/lib/heaptrack/libexec/heaptrack_interpret"


def run(*command, **options):
    return subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options).stdout


def allocations(heaptape, trace):
    """Sizes of what is allocated, in order, and how many objects are freed. A realloc is one of each."""
    sizes, frees = [], 0
    for line in run(heaptape, "dump", trace, text=True).splitlines():
        words = line.split()
        if line.startswith("#") or "failed" in words[5]:
            continue
        if words[1] == "free":
            frees += 1
        elif words[1] in ("realloc", "reallocarray"):
            sizes.append(int(words[3]))
            frees += "fresh" not in words[5]
        elif words[1] in ("malloc", "calloc", "posix_memalign", "aligned_alloc", "memalign", "valloc", "pvalloc"):
            sizes.append(int(words[3]))
    return sizes, frees


def main(heaptape, source):
    if not shutil.which("heaptrack_print"):
        sys.exit("heaptrack is not installed: ./bootstrap test installs it")
    trace = pathlib.Path(source) / "tests/golden/checkpoints.tape"
    sizes, frees = allocations(heaptape, trace)
    with tempfile.TemporaryDirectory(prefix="heaptape-test-") as name:
        folder = pathlib.Path(name)
        raw = run(heaptape, "convert", "--to", "heaptrack", trace, "-o", "-")
        interpreted = run(INTERPRET, input=raw)
        (folder / "story").write_bytes(interpreted)
        printed = run("heaptrack_print", folder / "story").decode(errors="replace")
        calls = int(re.search(r"calls to allocation functions: (\d+)", printed).group(1))
        assert calls == len(sizes), f"heaptrack counts {calls} allocations, the trace has {len(sizes)}"
        for form, data in (("raw", raw), ("interpreted", interpreted)):
            (folder / form).write_bytes(data)
            run(heaptape, "convert", folder / form, "-o", folder / f"{form}.tape")
            found = allocations(heaptape, folder / f"{form}.tape")
            assert found == (sizes, frees), f"{form}: {len(found[0])} allocations and {found[1]} frees came back of {len(sizes)} and {frees}"
    print(f"{calls} allocations, as heaptrack counts them")


if __name__ == "__main__":
    main(*sys.argv[1:])
