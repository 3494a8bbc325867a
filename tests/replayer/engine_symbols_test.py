#!/usr/bin/env python3
"""The worker runs under whichever C library is replayed against, and the preload inside any program: neither
may need a symbol newer than Debian 12's, wherever it was built.

    engine_symbols_test.py FILE...
"""

import re
import subprocess
import sys

OLDEST = (2, 36)
LIBRARIES = {"libc.so.6", "ld-linux-x86-64.so.2"}


def readelf(option, path):
    return subprocess.run(["readelf", "--wide", option, path], capture_output=True, text=True, check=True).stdout


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    wrong = []
    for path in sys.argv[1:]:
        symbols = [line.split() for line in readelf("--dyn-syms", path).splitlines() if " UND " in line]
        versioned = [words[7] for words in symbols if len(words) > 7 and "@GLIBC_" in words[7]]
        if not versioned:
            wrong.append(f"{path}: needs no versioned symbol at all, which cannot be")
        for name in versioned:
            version = tuple(int(part) for part in re.search(r"@GLIBC_([0-9.]+)", name).group(1).split("."))
            if version > OLDEST or name.startswith("__isoc23_"):
                wrong.append(f"{path}: needs {name}")
        thread_local = re.findall(r"^ *TLS(?: +\S+){4} +(\S+)", readelf("--program-headers", path), re.MULTILINE)
        if path.endswith("heaptape-worker") and thread_local != ["0x000010"]:
            wrong.append(f"{path}: {thread_local} bytes of thread-local data move the allocators' own, by whose address jemalloc "
                         "seeds its random numbers: its figures would change with every build")
        needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", readelf("--dynamic", path)))
        if needed - LIBRARIES:
            wrong.append(f"{path}: needs {', '.join(sorted(needed - LIBRARIES))}")
    print("\n".join(wrong) or f"{len(sys.argv) - 1} files need nothing newer than glibc {OLDEST[0]}.{OLDEST[1]}")
    return 1 if wrong else 0


sys.exit(main())
