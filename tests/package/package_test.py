"""Makes the Debian packages of the release this is, and has lintian look at them. releases_test.py installs them.

Usage: package_test.py BUILD_DIR
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent


def run(command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}: status {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout


def check_contents(packages):
    listed = {name: set(re.findall(r" \./(usr/\S+?)(?: -> .*)?$", run(["dpkg-deb", "-c", path]), re.M)) for name, path in packages.items()}
    program = listed["heaptape"]
    for wanted in ("usr/bin/heaptape", "usr/lib/heaptape/libheaptape.so", "usr/lib/heaptape/heaptape-writer.so", "usr/lib/heaptape/heaptape-worker",
                   "usr/lib/heaptape/heaptape-probe", "usr/share/man/man1/heaptape.1.gz", "usr/share/man/man1/heaptape-record.1.gz", "usr/share/bash-completion/completions/heaptape",
                   "usr/share/zsh/vendor-completions/_heaptape", "usr/share/fish/vendor_completions.d/heaptape.fish",
                   "usr/share/heaptape/guard-small.tape", "usr/share/doc/heaptape/examples/apparmor-local-system_tor",
                   "usr/share/doc/heaptape/examples/tor@default.service.d-heaptape.conf", "usr/share/doc/heaptape/README.md"):
        assert wanted in program, f"heaptape lacks {wanted}"
    assert "usr/lib/libheaptape-trace.so.0" in listed["libheaptape-trace0"], listed["libheaptape-trace0"]
    for wanted in ("usr/include/heaptape/trace.h", "usr/include/heaptape/trace.hpp", "usr/lib/cmake/heaptape/heaptapeConfig.cmake",
                   "usr/lib/pkgconfig/heaptape.pc", "usr/lib/libheaptape-trace.so"):
        assert wanted in listed["libheaptape-trace-dev"], f"libheaptape-trace-dev lacks {wanted}"
    names = [set(name for name in files if not name.endswith("/")) for files in listed.values()]
    assert not set.intersection(*names[:2]) and not names[0] & names[2] and not names[1] & names[2], "a file is in two packages"
    return sum(len(files) for files in names)


def check_examples(heaptape, parts):
    """The examples are what the program prints, for the folder that the package installs to."""
    printed = run([heaptape, "record", "--service", "tor@default"]).replace(str(parts), "/usr/lib/heaptape")
    drop_in, rules = printed.split("\n\n")
    examples = HERE.parents[1] / ".packaging/examples"
    for name, text in (("tor@default.service.d-heaptape.conf", drop_in), ("apparmor-local-system_tor", rules)):
        text = text.split("\n", 1)[1].rstrip("\n") + "\n"
        if os.environ.get("HEAPTAPE_REGENERATE") == "1":
            (examples / name).write_text(text)
        assert (examples / name).read_text() == text, f".packaging/examples/{name} is not what the program prints; HEAPTAPE_REGENERATE=1 renews it"


def main():
    build = pathlib.Path(sys.argv[1]).resolve()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="heaptape-package-"))
    try:
        check_examples(build / "bin/heaptape", build / "lib/heaptape")
        run(["cpack", "--config", build / "CPackConfig.cmake", "-B", folder / "made"])
        packages = {path.name.split("_")[0]: path for path in (folder / "made").glob("*.deb")}
        assert set(packages) == {"heaptape", "libheaptape-trace0", "libheaptape-trace-dev"}, packages
        files = check_contents(packages)
        lintian = subprocess.run(["lintian", "--allow-root", "--fail-on", "error", "--tag-display-limit", "0", *map(str, packages.values())],
                                 capture_output=True, text=True, env={**os.environ, "TMPDIR": str(folder)})
        assert lintian.returncode == 0, lintian.stdout + lintian.stderr
        warnings = lintian.stdout.count("W: ")
        depends = run(["dpkg-deb", "-f", packages["heaptape"], "Depends"]).strip()
        assert "libc6 (>=" in depends and "libzstd1" in depends, depends
        print(f"{files} files, no error and {warnings} warnings of lintian\n{lintian.stdout}\nheaptape depends on: {depends}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


main()
