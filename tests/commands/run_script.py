"""Runs one command-line script and compares what it prints, its stderr and its exit status with NAME.expected.

Usage: run_script.py [--regenerate] SCRIPT.sh BIN_DIR TESTS_DIR

The script runs under `sh` in a fresh folder with heaptape and the helper programs of the tests on its PATH, and with
HOME and XDG_CACHE_HOME in that folder. `--regenerate` (or HEAPTAPE_REGENERATE=1 for ctest) writes NAME.expected anew:
read the difference before committing it. Lines that some kernels give and others do not are taken out.
"""

import difflib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

# What a replay says of the kernel it ran on (replayer/replay.cc).
OF_THE_KERNEL = ("could not be counted: the kernel has no Syscall User Dispatch", "this kernel's memory counters are inexact",
                 "the kernel has no system call filters")


def without_remarks_on_the_kernel(text):
    return "".join(line for line in text.splitlines(True) if not any(remark in line for remark in OF_THE_KERNEL))


def run(script, bin_dir, tests_dir):
    folder = tempfile.mkdtemp(prefix="heaptape-script-")
    try:
        environment = {"PATH": f"{bin_dir}:{tests_dir}:/usr/local/bin:/usr/bin:/bin", "HOME": folder, "XDG_CACHE_HOME": folder + "/cache",
                       "LC_ALL": "C.UTF-8", "TMPDIR": folder, "SCRIPT_DIR": str(script.parent),
                       "HEAPTAPE_DISTRUST": os.environ.get("HEAPTAPE_DISTRUST", "")}
        done = subprocess.run(["sh", str(script)], cwd=folder, env=environment, capture_output=True, text=True)  # ctest limits it
        found = (f"--- stdout\n{without_remarks_on_the_kernel(done.stdout)}--- stderr\n{without_remarks_on_the_kernel(done.stderr)}"
                 f"--- exit status {done.returncode}\n")
        return found.replace(folder, "FOLDER").replace(str(bin_dir), "BIN")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main():
    arguments = sys.argv[1:]
    regenerate = "--regenerate" in arguments or os.environ.get("HEAPTAPE_REGENERATE") == "1"
    script, bin_dir, tests_dir = [pathlib.Path(argument).resolve() for argument in arguments if argument != "--regenerate"]
    expected = script.with_suffix(".expected")
    found = run(script, bin_dir, tests_dir)
    if regenerate:
        expected.write_text(found)
        return 0
    wanted = expected.read_text()
    sys.stdout.writelines(difflib.unified_diff(wanted.splitlines(True), found.splitlines(True), "expected", "found"))
    return 0 if found == wanted else 1


if __name__ == "__main__":
    sys.exit(main())
