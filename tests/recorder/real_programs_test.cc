// Programs as Debian ships them: recorded, they do what they do bare, and the trace is consistent.
//
// A program that is not installed fails its test: ./bootstrap test installs what is named here.

#include <algorithm>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/recorder/recorded_program.h"

namespace heaptape {
namespace {

struct RealProgram {
  std::string name;
  std::string command_line;  // for a shell in the test's folder; RECORD stands before the program to be recorded
  std::string needs;         // program or library that must be there
  std::string options;       // of heaptape record
};

void PrintTo(const RealProgram& program, std::ostream* out) { *out << program.name; }

class RealPrograms : public ::testing::TestWithParam<RealProgram> {};

std::string Replaced(std::string text, const std::string& by) {
  for (std::size_t at; (at = text.find("RECORD ")) != std::string::npos;) text.replace(at, 7, by);
  return text;
}

// What `heaptape record -v` said, taken out of what the program printed.
std::string TakeTalk(std::string& output) {
  std::istringstream lines(output);
  std::string kept, talk, line;
  while (std::getline(lines, line)) absl::StrAppend(absl::StartsWith(line, "heaptape: ") ? &talk : &kept, line, "\n");
  output = kept;
  return talk;
}

TEST_P(RealPrograms, RecordedItDoesWhatItDoesBare) {
  const RealProgram& program = GetParam();
  ASSERT_EQ(Shell(absl::StrCat("command -v ", program.needs, " || test -e ", program.needs)).status, 0)
      << program.needs << " is missing: ./bootstrap test installs it";
  TemporaryFolder bare_folder;
  TemporaryFolder folder;
  TemporaryFolder tapes;
  ShellResult bare = Shell(absl::StrCat("cd ", bare_folder.path(), " && { ", Replaced(program.command_line, ""), "; }"));
  const std::string record = absl::StrCat(HEAPTAPE_PROGRAM, " record -v --max-wait 60s ", program.options, " -o ",
                                          tapes.File("x.tape"), " -- ");
  ShellResult recorded = Shell(absl::StrCat("cd ", folder.path(), " && { ", Replaced(program.command_line, record), "; }"));
  const std::string talk = TakeTalk(recorded.output);
  TakeTalk(bare.output);  // ends both with a line's end
  EXPECT_EQ(recorded.status, bare.status);
  EXPECT_EQ(recorded.output, bare.output);
  EXPECT_EQ(bare.status, 0) << bare.output;
  for (const char* figure : {"lost", "unknown_frees", "missed_frees"}) {
    EXPECT_THAT(talk, ::testing::HasSubstr(absl::StrCat("heaptape:   ", figure, " 0\n")));
  }
  // Of the program, and of its children where they were asked for.
  EXPECT_TRUE(Eventually([&] {
    const std::vector<std::string> names = tapes.Names();
    return std::none_of(names.begin(), names.end(), [](const std::string& name) { return absl::EndsWith(name, ".part"); });
  }));
  const std::vector<std::string> names = tapes.Names();
  EXPECT_EQ(names.size() > 1, absl::StrContains(program.options, "--children"));
  for (const std::string& name : names) {
    const ReadTrace trace = ReadAndCheck(tapes.File(name));
    EXPECT_TRUE(trace.summary.complete);
    EXPECT_TRUE(trace.damage.empty());
    EXPECT_GT(trace.counts.at(Op::kMalloc), 20u);
    EXPECT_EQ(Shell(absl::StrCat(HEAPTAPE_PROGRAM, " verify ", tapes.File(name))).status, 0) << name;
  }
}

const char kPython[] =
    "export PYTHONMALLOC=malloc; RECORD /usr/bin/python3 -c '\n"
    "import threading, multiprocessing as m\n"
    "def work(n): return sum(len(str(i)) for i in range(n))\n"
    "if __name__ == \"__main__\":\n"
    "  t = [threading.Thread(target=work, args=(20000,)) for _ in range(8)]\n"
    "  [x.start() for x in t]; [x.join() for x in t]\n"
    "  with m.get_context(\"fork\").Pool(3) as p: print(sum(p.map(work, [5000] * 20)))\n"
    "'";

// Two workers under another user serve files over keep-alive connections, before and after a reload. A worker that leaves
// closes connections that wait for a request: the client then asks the next one.
const char kNginx[] =
    "chmod 755 . && mkdir www && head -c 300000 /dev/zero > www/a && cat > conf <<E\n"
    "daemon off; worker_processes 2; pid $PWD/pid; error_log $PWD/error; events {}\n"
    "http { access_log $PWD/access; client_body_temp_path $PWD/1; proxy_temp_path $PWD/2; fastcgi_temp_path $PWD/3;\n"
    "  uwsgi_temp_path $PWD/4; scgi_temp_path $PWD/5; gzip on; gzip_types *; gzip_min_length 1;\n"
    "  server { listen unix:$PWD/s; location / { root $PWD/www; } } }\n"
    "E\n"
    "cat > client <<E\n"
    "import socket, time\n"
    "def connect():\n"
    "  while True:\n"
    "    try: s = socket.socket(socket.AF_UNIX); s.connect('s'); return s\n"
    "    except OSError: time.sleep(0.05)\n"
    "def ask(s, path):\n"
    "  head = b''\n"
    "  try:\n"
    "    s.sendall(f'GET {path} HTTP/1.1\\r\\nHost: x\\r\\nAccept-Encoding: identity\\r\\n\\r\\n'.encode())\n"
    "    while b'\\r\\n\\r\\n' not in head:\n"
    "      byte = s.recv(1)\n"
    "      if not byte: return b''\n"
    "      head += byte\n"
    "  except OSError: return b''\n"
    "  return head\n"
    "total = 0\n"
    "for connection in range(20):\n"
    "  s = connect()\n"
    "  for path in ['/a', '/none'] * 10:\n"
    "    head = ask(s, path)\n"
    "    while not head: s = connect(); head = ask(s, path)\n"
    "    length = int(head.lower().split(b'content-length: ')[1].split(b'\\r')[0])\n"
    "    while length: n = len(s.recv(min(length, 65536))); length -= n; total += n\n"
    "print(total)\n"
    "E\n"
    "RECORD /usr/sbin/nginx -e $PWD/error -c $PWD/conf & python3 client; kill -HUP $(cat pid); python3 client; "
    "kill -QUIT $(cat pid); wait $!; ! grep alert error";

// Threads that write to disk, a pipe of commands, a background save by fork, in the midst of the load.
const char kRedis[] =
    "RECORD redis-server --port 0 --unixsocket $PWD/s --save '' --daemonize no --dir . > log & "
    "until redis-cli -s s ping > /dev/null 2>&1; do sleep 0.05; done; "
    "redis-benchmark -s s -q -n 20000 -r 5000 -d 200 -t set,lpush,hset > /dev/null & "
    "redis-cli -s s debug populate 20000 > /dev/null; redis-cli -s s bgsave; wait $!; "
    "redis-cli -s s flushall async; redis-cli -s s dbsize; "
    "until test -s dump.rdb; do sleep 0.05; done; redis-cli -s s shutdown nosave; wait; echo saved";

const char kNode[] =
    "RECORD node -e 'const { Worker } = require(\"worker_threads\"); let m = new Map(); for (let i = 0; i < 1e5; i++) m.set(i, \"x\" + i);\n"
    "let n = 3; for (let i = 0; i < 3; i++) new Worker(\"let s = 0; for (let i = 0; i < 1e6; i++) s += i;\", { eval: true })\n"
    "  .on(\"exit\", () => { if (--n == 0) console.log(m.size); })'";

std::string PerlOn(const std::string& library) {
  return absl::StrCat("LD_PRELOAD=", library, " RECORD perl -e 'my %h; $h{$_} = [$_] for 1..20000; print scalar(keys %h), \"\\n\"'");
}

INSTANTIATE_TEST_SUITE_P(
    Debian, RealPrograms,
    ::testing::Values(
        RealProgram{"gxx", "printf '#include <map>\\n#include <string>\\nstd::map<std::string,int> m; int main(){return m[\"a\"];}' > a.cc; "
                           "RECORD $(g++ -print-prog-name=cc1plus) -quiet -imultiarch x86_64-linux-gnu -O1 a.cc -o a.s && wc -l < a.s", "g++", ""},
        RealProgram{"python", kPython, "/usr/bin/python3", ""},
        RealProgram{"git", "git init -q . && echo x > f && git -c user.name=a -c user.email=a@b add f && RECORD git status --short f", "git", ""},
        RealProgram{"sqlite3", "RECORD sqlite3 a.db 'create table t(a,b); with recursive c(x) as (select 1 union all select x+1 from c where "
                               "x<20000) insert into t select x, hex(x) from c; select count(*), sum(a) from t;'", "sqlite3", ""},
        RealProgram{"perl", PerlOn("''"), "perl", ""},
        RealProgram{"xz", "head -c 2000000 /dev/zero > z; RECORD xz -k -T2 z; xz -dc z.xz | cksum", "xz", ""},
        RealProgram{"perl_on_jemalloc", PerlOn("libjemalloc.so.2"), "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2", ""},
        RealProgram{"perl_on_tcmalloc", PerlOn("libtcmalloc_minimal.so.4"), "/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4", ""},
        RealProgram{"perl_on_mimalloc", PerlOn("$(ls /usr/lib/x86_64-linux-gnu/libmimalloc.so.* | head -1)"), "perl", ""},
        RealProgram{"node", kNode, "node", ""},
        RealProgram{"java", "RECORD java -XX:-UsePerfData -XX:+PrintFlagsFinal -version > flags && wc -l < flags", "java", ""},
        RealProgram{"nginx", kNginx, "/usr/sbin/nginx", "--children"},
        RealProgram{"redis", kRedis, "redis-benchmark", ""},
        // Go finds the auxiliary vector behind the kernel's environment array.
        RealProgram{"runc", "RECORD runc --version", "/usr/sbin/runc", ""},
        // Its filter is on by default and kills for calls that it does not know.
        RealProgram{"chronyd", "RECORD chronyd -F 1 -Q -U -t 2 'server 127.0.0.1 iburst' 2>&1 | sed 's/^[0-9TZ:-]* //'; true", "/usr/sbin/chronyd", ""},
        RealProgram{"php", "RECORD php -n -r '$a = []; for ($i = 0; $i < 50000; $i++) $a[] = str_repeat(\"x\", $i % 500); "
                           "echo count($a), \" \", strlen(implode($a)), \"\\n\";'", "/usr/bin/php", ""}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace heaptape
