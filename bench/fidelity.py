#!/usr/bin/env python3
"""How far a replay is from the live program.

Runs deterministic programs live under each allocator (by LD_PRELOAD) and measures their anonymous memory,
peak and at the end; records each once under glibc; replays that one recording against every allocator; and
prints both side by side. What the program holds beside the heap (stacks, data, own mappings) is what stays
anonymous when its heap is shared memory (shared_heap.c); it is subtracted from the live figures. Allocators give
memory back by time, and a program runs faster or slower under each, and under the recorder: the replay's time is
brought to that of the live runs (--time-scale). Live runs are repeated and their median is taken.

    bench/fidelity.py build/release            all programs, all allocators
    bench/fidelity.py build/release --programs python,perl --allocators glibc,jemalloc
"""

import argparse
import ctypes
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import score_report
from build_tree import parts_or_exit

PTRACE_TRACEME, PTRACE_CONT, PTRACE_SETOPTIONS = 0, 7, 0x4200
PTRACE_O_TRACEEXIT, PTRACE_EVENT_EXIT, PTRACE_O_EXITKILL = 0x40, 6, 0x100000
ADDR_NO_RANDOMIZE = 0x0040000
PR_SET_THP_DISABLE = 41
MIB = 1 << 20
# Less than this is a few pages beside those that are subtracted: no share of it says anything.
LEAST_JUDGED_BYTES = MIB
LIBC = "/lib/x86_64-linux-gnu/libc.so.6"

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def read_memory(pid):
    """Peak and present anonymous memory of a stopped process, in bytes."""
    fields = {}
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            name, _, value = line.partition(":")
            if value.endswith(" kB\n"):
                fields[name] = int(value.split()[0]) * 1024
    other = fields["RssFile"] + fields["RssShmem"]
    return fields["VmHWM"] - other, fields["RssAnon"]


def run_live(command, environment, client=None):
    """Runs `command` and looks at its memory in the moment of its exit."""
    pid = os.fork()
    if pid == 0:
        null = os.open("/dev/null", os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        libc.personality(ADDR_NO_RANDOMIZE)
        libc.prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
        libc.ptrace(PTRACE_TRACEME, 0, None, None)
        os.execve(command[0], command, environment)
    memory = None
    start = time.monotonic()
    os.waitpid(pid, 0)
    libc.ptrace(PTRACE_SETOPTIONS, pid, None, PTRACE_O_TRACEEXIT | PTRACE_O_EXITKILL)
    libc.ptrace(PTRACE_CONT, pid, None, None)
    if client:
        client()
    while True:
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            if memory is None or not os.WIFEXITED(status) or os.WEXITSTATUS(status) != 0:
                raise RuntimeError(f"{command[0]} ended with status {status}")
            return memory
        deliver = 0
        if status >> 8 == signal.SIGTRAP | PTRACE_EVENT_EXIT << 8:
            memory = (*read_memory(pid), time.monotonic() - start)
        else:
            deliver = os.WSTOPSIG(status)
        libc.ptrace(PTRACE_CONT, pid, None, deliver)


def run_live_median(runs, command, environment, client=None):
    """Median of each figure over some runs."""
    return tuple(statistics.median(figures) for figures in zip(*(run_live(command, environment, client) for _ in range(runs))))


# --- programs -------------------------------------------------------------------------------------------

PYTHON_PROGRAM = """
import json, collections
table = {}
for i in range(150000):
    table['key%d' % (i * 7919 % 150000)] = [i, str(i) * 3, {'n': i}]
text = json.dumps(table)
back = json.loads(text)
for key in list(back)[::2]: del back[key]
queue = collections.deque(range(300000))
words = ' '.join('w%d' % (i % 5000) for i in range(300000)).split()
count = collections.Counter(words)
"""

PERL_PROGRAM = """
my %h; for my $i (0..250000) { $h{"k".($i*7919%250000)} = [ $i, "x" x ($i % 200) ]; }
my @k = sort { $a cmp $b } keys %h; for my $i (0..$#k) { delete $h{$k[$i]} if $i % 3; }
my $s = join(",", @k); my @w = split /,/, $s;
"""

SQL_PROGRAM = """
create table t(a integer primary key, b text, c real);
with recursive n(i) as (select 1 union all select i+1 from n where i<200000)
  insert into t select i, printf('%0100d', i*7919%200000), i*0.5 from n;
create index tb on t(b);
create table u as select b, sum(c) s, count(*) n from t group by substr(b, 90);
delete from t where a%3=0;
select count(*) from t join u on t.b=u.b;
"""

CXX_PROGRAM = "".join(f"#include <{name}>\n" for name in
                      ("regex", "map", "unordered_map", "iostream", "random", "functional", "string", "algorithm")) + """
int main(int c, char** v) { std::map<std::string, std::vector<std::regex>> m; std::unordered_map<int, std::string> u;
  std::mt19937 g; m[v[0]].push_back(std::regex(v[0])); u[c] = "x"; std::cout << m.size() + u.size() + g(); }
"""


class Programs:
    def __init__(self, build, folder):
        self.folder = folder
        self.build = build

    def path(self, name, text=None):
        path = os.path.join(self.folder, name)
        if text is not None:
            with open(path, "w") as file:
                file.write(text)
        return path

    def words(self):
        path = self.path("words")
        if not os.path.exists(path):
            with open(path, "w") as file:
                state = 12345
                for _ in range(2_000_000):
                    state = (state * 1103515245 + 12345) % 2**31
                    file.write(f"word{state % 40000} ")
        return path

    def all(self, chosen):
        """Name -> (command, environment, client); only of programs that are installed, and of the chosen ones if any are."""
        found = {}

        def add(name, make, environment=None, client=None):
            if chosen and name not in chosen:
                return
            command = make()
            program = command[0] if os.path.isabs(command[0]) else shutil.which(command[0], path="/usr/bin:/bin")
            if program and os.path.exists(program):
                found[name] = ([program, *command[1:]], environment or {}, client)
            else:
                print(f"fidelity: {name} is not installed and left out", file=sys.stderr)

        add("cc1plus", self.compiler)
        add("python", lambda: ["/usr/bin/python3", "-S", "-c", PYTHON_PROGRAM], {"PYTHONMALLOC": "malloc", "PYTHONHASHSEED": "0"})
        add("perl", lambda: ["perl", "-e", PERL_PROGRAM], {"PERL_HASH_SEED": "0"})
        add("sqlite3", lambda: ["sqlite3", ":memory:", SQL_PROGRAM])
        add("git", lambda: ["git", "-C", self.repository(), "-c", "core.pager=cat", "pack-objects", "--all", "--stdout", "--window=200",
                            "--threads=1", "--no-reuse-delta", "--no-reuse-object"], {"HOME": self.folder, "GIT_CONFIG_NOSYSTEM": "1"})
        add("xz -T2", lambda: ["xz", "-T2", "-2", "--block-size=2MiB", "-k", "-c", self.words()])
        add("zstd -T2", lambda: ["zstd", "-q", "-T2", "-9", "-c", self.words()])
        add("churn", lambda: [os.path.join(self.build, "bench", "churn")])
        # Debian's redis needs libjemalloc itself; to put glibc before it, glibc is preloaded by name.
        add("redis-server", lambda: ["redis-server", "--port", "0", "--unixsocket", self.path("redis.sock"), "--save", "", "--hz", "1",
                                     "--activedefrag", "no", "--io-threads", "1"], {"LD_PRELOAD": LIBC}, self.redis_load)
        return found

    def compiler(self):
        source = self.path("program.ii")
        subprocess.run(["g++", "-std=c++17", "-E", self.path("program.cc", CXX_PROGRAM), "-o", source], check=True)
        cc1plus = subprocess.run(["g++", "-print-prog-name=cc1plus"], check=True, capture_output=True, text=True).stdout.strip()
        return [cc1plus, "-quiet", "-O1", "-std=c++17", source, "-o", "/dev/null"]

    def repository(self):
        path = self.path("repository")
        if not os.path.exists(path):
            environment = {"HOME": self.folder, "PATH": "/usr/bin:/bin", "GIT_CONFIG_NOSYSTEM": "1"}
            git = ["git", "-C", path, "-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "gc.auto=0"]
            os.mkdir(path)
            subprocess.run([*git, "init", "-q"], env=environment, check=True)
            state = 1
            for commit in range(60):
                for index in range(20):
                    lines = []
                    for line in range(400):
                        state = (state * 1103515245 + 12345) % 2**31
                        lines.append(f"line {line} of {index}: {state if line % 17 == commit % 17 else line * index}\n")
                    self.path(f"repository/file{index}", "".join(lines))
                subprocess.run([*git, "add", "-A"], env=environment, check=True)
                subprocess.run([*git, "commit", "-q", "-m", f"change {commit}"], check=True,
                               env={**environment, "GIT_AUTHOR_DATE": "2020-01-01T00:00:00", "GIT_COMMITTER_DATE": "2020-01-01T00:00:00"})
        return path

    def redis_load(self):
        """The same commands in the same order over one connection, then an orderly end."""
        import socket
        client = socket.socket(socket.AF_UNIX)
        for _ in range(500):
            try:
                client.connect(self.path("redis.sock"))
                break
            except OSError:
                time.sleep(0.02)

        def talk(commands):
            message = b"".join(
                b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts) for parts in commands)
            client.sendall(message)
            replies = 0
            while replies < len(commands):
                replies += client.recv(1 << 20).count(b"\r\n")

        for start in range(0, 120_000, 100):
            talk([(b"SET", b"key:%d" % i, b"v" * (16 + i * 7919 % 700)) for i in range(start, start + 100)])
        for start in range(0, 120_000, 100):
            talk([(b"DEL", b"key:%d" % i) for i in range(start, start + 100) if i % 3])
        for start in range(0, 60_000, 100):
            talk([(b"HSET", b"hash:%d" % (i % 500), b"f%d" % i, b"w" * (8 + i % 90)) for i in range(start, start + 100)])
        client.sendall(b"*2\r\n$8\r\nSHUTDOWN\r\n$6\r\nNOSAVE\r\n")
        client.close()


# --- comparing --------------------------------------------------------------------------------------------

def environment_for(own, preload):
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", **own}
    if preload:
        environment["LD_PRELOAD"] = preload
    return environment


def record(heaptape, name, command, own, client, tape):
    environment = environment_for(own, own.get("LD_PRELOAD"))
    process = subprocess.Popen([heaptape, "record", "-o", tape, "--time-resolution", "1ms", "--", *command], env=environment,
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if client:
        client()
    _, errors = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"recording {name} failed: {errors.decode()}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("build", help="build folder, e.g. build/release")
    parser.add_argument("--programs", help="only these, separated by commas")
    parser.add_argument("--allocators", default="glibc,jemalloc,mimalloc@2.0.9,mimalloc@3.0.1,tcmalloc")
    parser.add_argument("--runs", type=int, default=3, help="live runs of each program under each allocator (default: 3)")
    parser.add_argument("--keep", metavar="FOLDER", help="keep the recordings here")
    parser.add_argument("--recordings", metavar="FOLDER",
                        help="replay the recordings that --keep kept here. On a machine with too little CPU for the recorder's writer it "
                             "looks at pages too late, and such a recording says too little of them")
    parser.add_argument("--json", metavar="FILE", help="also write every figure here")
    parser.add_argument("--update", metavar="FILE", type=pathlib.Path, nargs="?",
                        const=pathlib.Path(__file__).parent.parent / "replayer" / "ENGINE.md",
                        help="put the table where FILE has its marks (default: replayer/ENGINE.md)")
    arguments = parser.parse_args()
    try:
        os.nice(-15)  # decay goes by time: a program held up by others gives back more
    except OSError:
        print("fidelity: not privileged to run undisturbed by others; decay may differ", file=sys.stderr)
    build = os.path.abspath(arguments.build)
    heaptape, shared_heap, _ = map(str, parts_or_exit("fidelity", build, "heaptape", "libheaptape_shared_heap.so", "churn"))
    rows = []
    with tempfile.TemporaryDirectory(prefix="heaptape-fidelity-") as folder:
        keep = arguments.recordings or arguments.keep or folder
        os.makedirs(keep, exist_ok=True)
        chosen = arguments.programs.split(",") if arguments.programs else []
        programs = Programs(build, folder).all(chosen)
        if missing := set(chosen) - set(programs):
            sys.exit(f"fidelity: no program {', '.join(sorted(missing))} here")
        print(HEAD, flush=True)
        for name in chosen or programs:
            command, own, client = programs[name]
            tape = os.path.join(keep, name.replace(" ", "") + ".tape")
            if not arguments.recordings:
                record(heaptape, name, command, own, client, tape)
            inspected = json.loads(subprocess.run([heaptape, "inspect", tape, "--format", "json"], capture_output=True, check=True).stdout)
            recorded_seconds = inspected["duration_ns"] / 1e9
            beside = run_live(command, environment_for(own, shared_heap), client)[1]
            for specification in arguments.allocators.split(","):
                def replay(scale):
                    done = subprocess.run([heaptape, "replay", tape, "--allocator", specification, "--format", "json", "--no-cache",
                                           "--time-scale", f"{scale:.4f}"], capture_output=True, check=True)
                    return json.loads(done.stdout)["runs"][0]

                library = replay(1)["library_path"]
                preload = own.get("LD_PRELOAD") if specification == "glibc" else library
                live_peak, live_end, seconds = run_live_median(arguments.runs, command, environment_for(own, preload), client)
                replayed = replay(seconds / recorded_seconds)
                row = {"program": name, "allocator": f"{replayed['allocator']} {replayed['version']}",
                       "live_peak": live_peak - beside, "live_end": live_end - beside,
                       "replay_peak": replayed["peak_rss_bytes"], "replay_end": replayed["end_rss_bytes"], "non_heap": beside,
                       "error": replayed["error"], "live_seconds": seconds,
                       "recorded_seconds": recorded_seconds}
                rows.append(row)
                print(table_row(row), flush=True)
    closing = summary(rows)
    print("\n" + closing)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(rows, file, indent=1)
    if arguments.update:
        block = "\n".join([HEAD, *map(table_row, rows), "", closing, ""])
        arguments.update.write_text(score_report.mark_block(arguments.update.read_text(), "fidelity", block))


HEAD = """| program | allocator | peak MiB, live / replay | error | end MiB, live / replay | error | seconds, live / recorded |
|---|---|---:|---:|---:|---:|---:|"""


def table_row(row):
    cells = [row["program"], row["allocator"]]
    for figure in ("peak", "end"):
        live, replay = row[f"live_{figure}"], row[f"replay_{figure}"]
        cells += [f"{live / MIB:.1f} / {replay / MIB:.1f}", f"{replay / live - 1:+.1%}".replace("%", " %")]
    cells.append(f"{row['live_seconds']:.1f} / {row['recorded_seconds']:.1f}")
    return "| " + " | ".join(cells) + " |" + (f" {row['error']}" if row["error"] else "")


def summary(rows):
    """Sentences on errors and on ranks that are turned."""
    lines = []
    for figure in ("peak", "end"):
        judged = [row for row in rows if row[f"live_{figure}"] >= LEAST_JUDGED_BYTES]
        errors = [abs(row[f"replay_{figure}"] / row[f"live_{figure}"] - 1) for row in judged]
        worst = max(zip(errors, judged), key=lambda pair: pair[0])
        lines.append(f"{figure}: median error {statistics.median(errors):.1%}, worst {worst[0]:.1%} ({worst[1]['program']}, {worst[1]['allocator']})")
        for row in rows:
            if row not in judged:
                live, replay = (row[f"{kind}_{figure}"] / 1024 for kind in ("live", "replay"))
                lines.append(f"{figure}: {row['program']} under {row['allocator']} not judged: {live:.0f} KiB live, {replay:.0f} replayed")
        turned = []
        for a in rows:
            for b in rows:
                live, replay = (a[f"live_{figure}"], b[f"live_{figure}"]), (a[f"replay_{figure}"], b[f"replay_{figure}"])
                if a["program"] == b["program"] and live[0] > 1.05 * live[1] and replay[0] < replay[1]:
                    turned.append(f"{a['program']}: {a['allocator']} and {b['allocator']}")
        lines.append(f"{figure}: pairs more than 5 % apart live and ranked the other way: {len(turned)}" + "".join(f"; {t}" for t in turned))
    return "  \n".join(lines)


if __name__ == "__main__":
    main()
