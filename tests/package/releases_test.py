"""Goes a new user's way in a fresh Debian, for each release that is named: a clean clone, `./bootstrap deps` as root, the
rest as another user; then the packages made there, installed in a second fresh root by apt, tried, and taken away again.

Usage: releases_test.py SOURCE_FOLDER [--release bookworm]... [--steps build,demo,test,package,install] [--folder FOLDER]

What is committed is what is tried. What the tests skip for an ordinary user is run again as root. Prints how long each step took and keeps its output in FOLDER/RELEASE-STEP.log; without
--folder everything is made in a temporary one. In a FOLDER that exists the roots found there are used again.
Needs root, debootstrap and Debian's archive, and some two hours for all: skipped unless HEAPTAPE_LONG_TESTS is set.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
RELEASES = ("bookworm", "trixie")
STEPS = ("build", "demo", "test", "package", "install")
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"

# What each step needs of `./bootstrap deps`, and what it runs in the root where heaptape is built.
IN_SOURCE = {
    "build": ("", "./bootstrap build && build/release/bin/heaptape replay traces/samples/guard-small.tape -a glibc"),
    "demo": ("", "./bootstrap demo"),
    "test": ("test", "./bootstrap test"),
    "package": ("test", "./bootstrap package && lintian --fail-on error --tag-display-limit 0 build/release/packages/*.deb"),
}

TRY_PACKAGES = r"""
cd
heaptape --version
man heaptape-record | head -5
heaptape allocators list | head -5
heaptape record -o sqlite.tape -- sqlite3 :memory: 'create table t(x); insert into t values (1); select sum(x) from t'
heaptape verify sqlite.tape
heaptape replay sqlite.tape -a glibc -a bump -f json -o own.json > /dev/null
heaptape replay /usr/share/heaptape/guard-small.tape --report guard.html -o guard.json
test -s guard.html
c++ -std=c++20 /reader/live_bytes.cc -o live_bytes $(pkg-config --cflags --libs heaptape)
test "$(./live_bytes /usr/share/heaptape/guard-small.tape | grep peak_live_bytes)" = "peak_live_bytes 418665036"
cc /reader/count_calls.c -o count_calls $(pkg-config --cflags --libs heaptape)
./count_calls sqlite.tape
python3 -c "import json; assert not [r for f in ('own.json', 'guard.json') for r in json.load(open(f))['runs'] if r.get('error')]"
"""


def run(command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"{command}: status {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


class Root:
    """A Debian in a folder. Its commands run in namespaces of their own: no mount and no process of theirs is left."""

    def __init__(self, folder, release, role):
        self.folder, self.release, self.path = folder, release, folder / f"{release}-{role}"

    def make(self):
        if self.path.exists():
            return
        bare = self.folder / f"{self.release}-bare"
        if not bare.exists():
            unfinished = self.folder / f"{self.release}-unfinished"
            run(["debootstrap", "--variant=minbase", self.release, unfinished])
            unfinished.rename(bare)
        run(["cp", "-a", bare, self.path])
        for name in ("/etc/resolv.conf", "/etc/hosts"):
            if os.path.exists(name):
                shutil.copy(name, str(self.path) + name)
        # As this machine's apt and npm reach the archives.
        settings = run(["apt-config", "dump", "Acquire::http::Proxy", "Acquire::https::Proxy", "Acquire::Check-Valid-Until", "Acquire::Check-Date"])
        (self.path / "etc/apt/apt.conf.d/99machine").write_text(settings)
        if os.path.exists(CERTIFICATES):
            shutil.copy(CERTIFICATES, self.path / "certificates.crt")
        self.inside("apt-get update -q && useradd -m -s /bin/sh somebody")

    def inside(self, script, user="root", log=None):
        home = "/root" if user == "root" else f"/home/{user}"
        environment = [f"HOME={home}", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8",
                       "DEBIAN_FRONTEND=noninteractive", "NODE_EXTRA_CA_CERTS=/certificates.crt"]
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec",
                   # A mount of its own, so that tests can make namespaces within it.
                   'mount --make-rprivate / ; mount --bind "$0" "$0"; '
                   'mount -t proc proc "$0/proc"; mount --rbind /dev "$0/dev"; mount --rbind /sys "$0/sys"; '
                   'root=$0; exec chroot "$root" /usr/bin/env -i "$@"',
                   self.path, *environment, "setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "sh", "-ec", script]
        with open(log or os.devnull, "w") as output:
            done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        if done.returncode != 0:
            end = pathlib.Path(log).read_text(errors="replace")[-6000:] if log else ""
            sys.exit(f"Debian {self.release}, as {user}: status {done.returncode}\n{script}\n{end}")


def what_apt_said(log):
    text = log.read_text(errors="replace")
    figures = [re.search(said, text) for said in (r"(\d+) newly installed", r"Need to get (\d+ [kM]?B)", r"operation, (\d+ [kM]?B)")]
    return "  {} packages, {} fetched, {} on disk".format(*(figure[1] for figure in figures)) if all(figures) else ""


def timed(release, step, act, apt_log=None):
    started = time.monotonic()
    print(f"{release:10} {step:10} ...", flush=True)
    act()
    print(f"{release:10} {step:10} {time.monotonic() - started:6.0f} s{what_apt_said(apt_log) if apt_log else ''}", flush=True)


def try_release(source, folder, release, steps):
    log = lambda step: folder / f"{release}-{step}.log"
    built = Root(folder, release, "source")
    timed(release, "root", built.make)
    clone = built.path / "home/somebody/heaptape"
    if steps != ["install"]:
        if clone.exists():
            run(["git", "-C", source, "bundle", "create", "-q", built.path / "source.bundle", "HEAD"])
            built.inside("cd ~/heaptape && git fetch -q /source.bundle HEAD && git reset -q --hard FETCH_HEAD", "somebody", log("pull"))
        else:
            run(["git", "-C", source, "bundle", "create", "-q", built.path / "source.bundle", "HEAD"])
            built.inside("apt-get install -y -q --no-install-recommends git ca-certificates", "root", log("git"))
            built.inside("git clone -q /source.bundle ~/heaptape", "somebody", log("clone"))
    installed = set()
    for step in steps:
        if step not in IN_SOURCE:
            continue
        needs, script = IN_SOURCE[step]
        if needs not in installed:
            name = f"deps {needs}".strip()
            log_file = log(name.replace(" ", "-"))
            timed(release, name, lambda: built.inside(f"cd /home/somebody/heaptape && ./bootstrap {name}", "root", log_file), log_file)
            installed.add(needs)
        timed(release, step, lambda: built.inside(f"cd ~/heaptape && {script}", "somebody", log(step)))
        if step == "test":
            skipped = re.findall(r"Test +#(\d+):.*\*\*\*Skipped", log(step).read_text(errors="replace").rpartition("== Testing\n")[2])
            again = f"git config --global safe.directory '*' && ctest --preset release -I 0,0,0,{','.join(skipped)}"
            timed(release, "as root", lambda: built.inside(f"cd /home/somebody/heaptape && {again}", "root", log("as-root")))
    if "install" in steps:
        packages = sorted((clone / "build/release/packages").glob("*.deb"))
        assert len(packages) == 3, f"{clone}: {packages}; run the step package first"
        fresh = Root(folder, release, "installed")
        fresh.make()
        shutil.rmtree(fresh.path / "packages", ignore_errors=True)
        (fresh.path / "packages").mkdir()
        for package in packages:
            shutil.copy(package, fresh.path / "packages")
        shutil.copytree(HERE / "reader", fresh.path / "reader", dirs_exist_ok=True)

        def act():
            fresh.inside("apt-get install -y -q --no-install-recommends /packages/*.deb g++ pkg-config sqlite3 python3 man-db", "root", log("apt"))
            fresh.inside(TRY_PACKAGES, "somebody", log("install"))
            fresh.inside("dpkg -V heaptape libheaptape-trace0 libheaptape-trace-dev\n"
                         "apt-get remove -y -q heaptape libheaptape-trace0 libheaptape-trace-dev\n"
                         "test ! -e /usr/bin/heaptape && test ! -e /usr/lib/heaptape", "root", log("remove"))
        timed(release, "install", act)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("--release", action="append", choices=RELEASES)
    parser.add_argument("--steps", default="build,demo,test,package,install")
    parser.add_argument("--folder", type=pathlib.Path)
    arguments = parser.parse_args()
    steps = arguments.steps.split(",")
    if unknown := set(steps) - set(STEPS):
        parser.error(f"--steps: {', '.join(unknown)} is none of {', '.join(STEPS)}")
    for missing in ([] if "HEAPTAPE_LONG_TESTS" in os.environ else ["HEAPTAPE_LONG_TESTS"],
                    [] if os.geteuid() == 0 else ["root's rights, for debootstrap and chroot"],
                    [] if shutil.which("debootstrap") else ["debootstrap"]):
        if missing:
            print(f"skipped: needs {missing[0]}")
            sys.exit(77)
    folder = arguments.folder or pathlib.Path(tempfile.mkdtemp(prefix="heaptape-releases-"))
    folder.mkdir(exist_ok=True)
    try:
        for release in arguments.release or RELEASES:
            try_release(arguments.source.resolve(), folder.resolve(), release, steps)
    finally:
        if not arguments.folder:
            shutil.rmtree(folder, ignore_errors=True)


main()
