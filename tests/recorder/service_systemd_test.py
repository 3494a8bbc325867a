#!/usr/bin/env python3
"""The drop-in and the AppArmor rules of `heaptape record --service`, with Debian's unit and profile of tor.

    service_systemd_test.py BUILD

systemd checks and boots them: in namespaces of its own, as process 1, on a copy-on-write view of this system's files, with
no network. There tor@default.service is installed, started, reloaded, stopped, killed, and rid of its recorder again.
Nothing outside is touched. Exit 77 where a machine does not allow that.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

DOCUMENT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "docs", "recording-a-guard.md")
BUILD = os.path.abspath(sys.argv.pop(1)) if len(sys.argv) > 1 else ""
SKIP = 77

# As process 1 of new namespaces. $1: an empty folder, $2: the build tree.
BOOT = r"""
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755,size=3g tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
cd "$1/root"
# Where a unit with ProtectHome= and PrivateTmp= sees it.
mkdir -p opt/heaptape/bin opt/heaptape/lib
cp "$2/bin/heaptape" opt/heaptape/bin/
cp -r "$2/lib/heaptape" opt/heaptape/lib/
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
for node in null zero full random urandom tty; do touch "dev/$node"; mount --bind "/dev/$node" "dev/$node"; done
mkdir dev/shm dev/pts dev/mqueue
mount -t devpts -o newinstance devpts dev/pts
ln -s /proc/self/fd dev/fd
ln -s pts/ptmx dev/ptmx
touch dev/console
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
: > etc/fstab
rm -rf etc/systemd/system/*.wants etc/systemd/system/tor@default.service.d var/lib/heaptape
: > etc/apparmor.d/local/system_tor
printf 'DisableNetwork 1\nSocksPort 0\n' > etc/tor/torrc
mkdir before
pivot_root . before
umount -l before
rmdir before
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=systemd-journald.service \
  --log-target=null --show-status=no <dev/null >dev/null 2>&1
"""


class Machine:
    """A booted systemd. Commands run inside it."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="heaptape-test-")
        self.unshare = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--cgroup", "--uts", "--ipc", "--net", "sh", "-c", BOOT,
             "sh", self.folder, BUILD], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.init = None

    def boot(self):
        """None, or why it does not come up."""
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            if self.unshare.poll() is not None:
                return self.unshare.stderr.read().strip()
            if self.init is None:
                with open(f"/proc/{self.unshare.pid}/task/{self.unshare.pid}/children", encoding="ascii") as children:
                    self.init = next(iter(children.read().split()), None)
            elif self("systemctl", "is-active", "systemd-journald.service").stdout == "active\n":
                return None
            time.sleep(0.1)
        return "systemd did not come up within five minutes"

    def __call__(self, *command):
        inside = ["nsenter", "-t", self.init, "-a", "--root", "env", "-i", "--chdir=/", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
        return subprocess.run([*inside, *command],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)

    def end(self):
        self.unshare.kill()  # and with it process 1 and all there is in its namespaces
        self.unshare.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


DROP_IN = "/etc/systemd/system/tor@default.service.d/heaptape.conf"
LOCAL = "/etc/apparmor.d/local/system_tor"
HEAPTAPE = "/opt/heaptape/bin/heaptape"
UNIT = "tor@default.service"
UNIT_FILE = "/lib/systemd/system/tor@default.service"


class ServiceUnderSystemd(unittest.TestCase):
    def setUp(self):
        self.machine = machine

    def run_in(self, *command, status=0):
        done = self.machine(*command)
        self.assertEqual(done.returncode, status, f"{' '.join(command)}:\n{done.stdout}")
        return done.stdout

    def shell(self, line, status=0):
        return self.run_in("sh", "-c", line, status=status)

    def show(self, name):
        return self.run_in("systemctl", "show", "-P", name, UNIT).strip()

    def eventually(self, condition, what):
        deadline = time.monotonic() + 300
        while not condition():
            self.assertLess(time.monotonic(), deadline, what + "\n" + self.machine("journalctl", "--no-pager", "-n", "30").stdout)
            time.sleep(0.1)

    def control(self):
        return dict(line.split(None, 1) for line in self.run_in(HEAPTAPE, "ctl", self.show("MainPID")).splitlines())

    def await_recording(self):
        self.eventually(lambda: self.control()["state"] == "recording", "not recorded")

    def tapes(self):
        return sorted(self.shell("ls /var/lib/heaptape 2>/dev/null || true").split())

    def start(self):
        done = self.machine("systemctl", "start", UNIT)
        self.assertEqual(done.returncode, 0, done.stdout + self.machine("systemctl", "--no-pager", "status", UNIT).stdout)

    def test_a_service_from_its_installation_to_its_removal(self):
        install = [HEAPTAPE, "record", "--service", "tor@default", "--install"]
        self.assertIn("systemctl daemon-reload", self.run_in(*install))

        with self.subTest("systemd reads unit and drop-in without a complaint, and would complain"):
            self.assertNotIn("heaptape", self.run_in("systemd-analyze", "verify", UNIT_FILE))
            self.shell(f"cp {DROP_IN} /tmp/kept && echo Nonsense=1 >> {DROP_IN}")
            self.assertIn(f"{DROP_IN}:", self.machine("systemd-analyze", "verify", UNIT_FILE).stdout)
            self.shell(f"cp /tmp/kept {DROP_IN}")

        with self.subTest("the profile with its local rules compiles, and would not with a broken one"):
            compile_it = ["apparmor_parser", "--skip-kernel-load", "--skip-cache", "/etc/apparmor.d/system_tor"]
            self.run_in(*compile_it)
            self.assertIn("owner /var/lib/heaptape/** rwk,", self.run_in(*compile_it, "--preprocess"))
            self.shell(f"cp {LOCAL} /tmp/kept && echo '  owner nonsense' >> {LOCAL}")
            self.assertNotEqual(self.machine(*compile_it).returncode, 0)
            self.shell(f"cp /tmp/kept {LOCAL}")

        self.run_in("systemctl", "daemon-reload")
        self.start()
        with self.subTest("it is recorded, into a folder of its own"):
            self.await_recording()
            status = self.control()
            self.assertRegex(status["output"], r"^/var/lib/heaptape/tor@default-\d{8}T\d{6}Z\.tape$")
            self.assertEqual(self.run_in("stat", "-c", "%U %a", "/var/lib/heaptape").strip(), "root 700")
            self.assertEqual(len(self.tapes()), 1, "the unit's check of the configuration is not recorded")
            self.assertRegex(self.tapes()[0], r"\.0001\.tape\.part$")
            # tor has become another user, as it does bare.
            self.assertEqual(self.run_in("ps", "-o", "user=", "-p", self.show("MainPID")).strip(), "debian-tor")
        with self.subTest("reload"):
            self.run_in("systemctl", "reload", UNIT)
            self.eventually(lambda: "Received reload signal" in self.run_in("journalctl", "--no-pager", "-u", UNIT), "no reload")
            self.assertEqual(self.show("ActiveState"), "active")
        with self.subTest("stop"):
            self.run_in("systemctl", "stop", UNIT)
            self.assertEqual((self.show("ActiveState"), self.show("Result")), ("inactive", "success"))
            (tape,) = self.tapes()
            self.assertTrue(tape.endswith(".0001.tape"), tape)
            self.assertEqual(self.run_in("stat", "-c", "%U %a", f"/var/lib/heaptape/{tape}").strip(), "root 600")
            self.run_in(HEAPTAPE, "verify", f"/var/lib/heaptape/{tape}")
            self.assertRegex(self.run_in(HEAPTAPE, "inspect", f"/var/lib/heaptape/{tape}"), r"(?m)^program +tor\b")
        with self.subTest("killed, it is started again, and each life has its own recording"):
            self.start()
            self.run_in("kill", "-KILL", self.show("MainPID"))
            self.eventually(lambda: self.show("NRestarts") == "1" and self.show("ActiveState") == "active", "not started again")
            self.await_recording()
            self.eventually(lambda: [name.endswith(".part") for name in self.tapes()] == [False, False, True], str(self.tapes()))
            for tape in self.tapes()[:2]:
                self.run_in(HEAPTAPE, "verify", f"/var/lib/heaptape/{tape}")
        with self.subTest("removed, it runs as without"):
            self.run_in(HEAPTAPE, "record", "--service", "tor@default", "--remove")
            self.run_in("test", "!", "-e", os.path.dirname(DROP_IN))
            self.assertEqual(self.shell(f"cat {LOCAL}"), "")
            self.run_in("systemctl", "daemon-reload")
            self.run_in("systemctl", "restart", UNIT)
            before = self.tapes()
            self.assertEqual(len(before), 3)
            self.assertFalse(any(name.endswith(".part") for name in before))
            self.assertIn("is not being recorded", self.run_in(HEAPTAPE, "ctl", self.show("MainPID"), status=1))
            self.assertNotIn("libheaptape", self.shell(f"cat /proc/{self.show('MainPID')}/maps"))

    def test_b_what_the_document_tells_an_operator_to_type(self):
        """The blocks of docs/recording-a-guard.md that no other test can run, in its order."""
        with open(DOCUMENT, encoding="utf-8") as file:
            blocks = re.findall(r"^```sh\n(.*?)^```", file.read(), re.M | re.S)
        lines = [line for block in blocks for line in block.splitlines()]
        self.assertGreaterEqual(len(lines), 10)
        self.run_in("systemctl", "stop", UNIT)
        before = self.tapes()
        printed = {}
        for line in lines:
            # Compiled, but not loaded into the kernel.
            tried = line.replace("apparmor_parser -r ", "apparmor_parser --skip-kernel-load --skip-cache ")
            if line.startswith("heaptape join "):  # of the start that was last
                tried = re.sub(r"\d{8}T\d{6}Z", self.tapes()[-1].split("-")[1].split(".")[0], line)
            printed[line] = self.shell(f"export PATH=/opt/heaptape/bin:$PATH SYSTEMD_PAGER=cat; {tried}")
            if line == "systemctl restart tor@default.service" and self.machine("test", "-e", DROP_IN).returncode == 0:
                self.await_recording()
        self.assertIn("apparmor_parser -r /etc/apparmor.d/system_tor", lines)
        self.assertRegex(printed["heaptape ctl $(systemctl show -P MainPID tor@default.service) status"], r"(?m)^state +recording$")
        self.assertRegex(printed["ls -l /var/lib/heaptape"], r"-rw------- .*\.tape\.part\n")
        self.assertIn("Signaled readiness to systemd", printed["journalctl -u tor@default.service --since -10min"])
        self.assertRegex(self.run_in(HEAPTAPE, "inspect", "guard.tape"), r"(?m)^program +tor\b")
        # Recorded once, and taken away again.
        self.assertEqual(len(self.tapes()), len(before) + 1)
        self.run_in("test", "!", "-e", DROP_IN)
        self.assertEqual(self.show("ActiveState"), "active")
        self.assertNotIn("libheaptape", self.shell(f"cat /proc/{self.show('MainPID')}/maps"))


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("only root can boot a systemd of its own")
        sys.exit(SKIP)
    for needed in ("/lib/systemd/systemd", "/lib/systemd/system/tor@default.service", "/usr/sbin/apparmor_parser"):
        if not os.path.exists(needed):
            sys.exit(f"{needed} is missing: ./bootstrap test installs it")
    machine = Machine()
    try:
        if why := machine.boot():
            print(f"no systemd can be booted here: {why}")
            sys.exit(SKIP)
        unittest.main()
    finally:
        machine.end()
