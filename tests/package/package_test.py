"""Makes the Debian packages, has lintian look at them, and, with HEAPTAPE_LONG_TESTS, installs them in a new root.

Usage: package_test.py BUILD_DIR

The long part needs root, debootstrap and Debian's archive. It makes a fresh root of the release this machine runs, installs
the packages by apt, records and replays there as another user than root, builds a program with the reader library, and
takes the packages away again.
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


def release():
    fields = dict(line.rstrip().split("=", 1) for line in open("/etc/os-release") if "=" in line)
    return fields["VERSION_CODENAME"].strip('"'), fields["VERSION_ID"].strip('"')


def check_contents(packages):
    listed = {name: set(re.findall(r" \./(usr/\S+?)(?: -> .*)?$", run(["dpkg-deb", "-c", path]), re.M)) for name, path in packages.items()}
    program = listed["heaptape"]
    for wanted in ("usr/bin/heaptape", "usr/lib/heaptape/libheaptape.so", "usr/lib/heaptape/heaptape-writer.so", "usr/lib/heaptape/heaptape-worker",
                   "usr/lib/heaptape/heaptape-probe", "usr/share/man/man1/heaptape.1.gz", "usr/share/bash-completion/completions/heaptape",
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
    examples = HERE.parents[1] / "packaging/examples"
    for name, text in (("tor@default.service.d-heaptape.conf", drop_in), ("apparmor-local-system_tor", rules)):
        text = text.split("\n", 1)[1].rstrip("\n") + "\n"
        if os.environ.get("HEAPTAPE_REGENERATE") == "1":
            (examples / name).write_text(text)
        assert (examples / name).read_text() == text, f"packaging/examples/{name} is not what the program prints; HEAPTAPE_REGENERATE=1 renews it"


def mounts_of(root):
    return [line.split()[1] for line in open("/proc/mounts") if line.split()[1].startswith(str(root))]


def try_in_new_root(folder, packages):
    codename, version = release()
    root = folder / codename
    run(["debootstrap", "--variant=minbase", codename, root])
    for name in ("/etc/resolv.conf", "/etc/hosts", "/etc/apt/apt.conf.d/99artifact-registry"):
        if os.path.exists(name):
            shutil.copy(name, str(root) + name)
    (root / "packages").mkdir()
    for path in packages.values():
        shutil.copy(path, root / "packages")
    shutil.copytree(HERE / "reader", root / "reader")
    script = r"""
set -e
export DEBIAN_FRONTEND=noninteractive
apt-get update -q >/dev/null
apt-get install -y -q --no-install-recommends /packages/*.deb g++ pkg-config sqlite3 python3 >/dev/null
useradd -m somebody
cat > /try <<'END'
set -e
cd
heaptape --version
heaptape allocators list | head -5
heaptape record -o sqlite.tape -- sqlite3 :memory: 'create table t(x); insert into t values (1); select sum(x) from t'
heaptape verify sqlite.tape
heaptape replay sqlite.tape -a glibc -a bump -f json -o own.json > /dev/null
heaptape replay /usr/share/heaptape/guard-small.tape -a glibc -o guard.json
c++ -std=c++20 /reader/live_bytes.cc -o live_bytes $(pkg-config --cflags --libs heaptape)
./live_bytes /usr/share/heaptape/guard-small.tape
cc /reader/count_calls.c -o count_calls $(pkg-config --cflags --libs heaptape)
./count_calls sqlite.tape
python3 -c "import json; print('ERRORS', sum(r.get('error') is not None for f in ('own.json', 'guard.json') for r in json.load(open(f))['runs']))"
END
su somebody -c 'sh /try'
dpkg -V heaptape libheaptape-trace0 libheaptape-trace-dev
apt-get remove -y -q heaptape libheaptape-trace0 libheaptape-trace-dev >/dev/null
test ! -e /usr/bin/heaptape
test ! -e /usr/lib/heaptape
"""
    # A mount namespace of its own: whatever happens, no mount is left.
    printed = run(["unshare", "-m", "sh", "-c", 'mount --make-rprivate / && mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && '
                   'exec chroot "$0" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 sh -c "$1"', root, script])
    assert "ERRORS 0" in printed, printed
    assert "peak_live_bytes 418665036" in printed, printed
    print(f"Debian {version} ({codename}):\n{printed}")


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
                                 capture_output=True, text=True)
        assert lintian.returncode == 0, lintian.stdout + lintian.stderr
        warnings = lintian.stdout.count("W: ")
        depends = run(["dpkg-deb", "-f", packages["heaptape"], "Depends"]).strip()
        assert "libc6 (>=" in depends and "libzstd1" in depends, depends
        print(f"{files} files, no error and {warnings} warnings of lintian\n{lintian.stdout}\nheaptape depends on: {depends}")
        if os.environ.get("HEAPTAPE_LONG_TESTS"):
            try_in_new_root(folder, packages)
    finally:
        assert not mounts_of(folder), mounts_of(folder)
        shutil.rmtree(folder, ignore_errors=True)


main()
