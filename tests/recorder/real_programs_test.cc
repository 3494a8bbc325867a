// Programs as Debian ships them: recorded, they do what they do bare, and the trace is consistent.
//
// A program that is not installed fails its test: ./bootstrap test installs what is named here. Those marked
// optional (java, node, nginx, tor: large or seldom wanted) are left out where they are missing, visibly.

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/recorder/recorded_program.h"

namespace heaptape {
namespace {

struct RealProgram {
  std::string name;
  std::string command_line;  // for a shell in the test's folder; RECORD stands before the program to be recorded
  bool optional = false;
  std::string needs;         // program or library that must be there; the first word of the command line otherwise
};

void PrintTo(const RealProgram& program, std::ostream* out) { *out << program.name; }

class RealPrograms : public ::testing::TestWithParam<RealProgram> {};

std::string Replaced(std::string text, const std::string& by) {
  for (std::size_t at; (at = text.find("RECORD ")) != std::string::npos;) text.replace(at, 7, by);
  return text;
}

TEST_P(RealPrograms, RecordedItDoesWhatItDoesBare) {
  const RealProgram& program = GetParam();
  const bool there = Shell(absl::StrCat("command -v ", program.needs, " || test -e ", program.needs)).status == 0;
  if (!there && program.optional) GTEST_SKIP() << program.needs << " is not installed";
  ASSERT_TRUE(there) << program.needs << " is missing: ./bootstrap test installs it";
  TemporaryFolder bare_folder;
  TemporaryFolder folder;
  const ShellResult bare = Shell(absl::StrCat("cd ", bare_folder.path(), " && { ", Replaced(program.command_line, ""), "; }"));
  const std::string record = absl::StrCat(HEAPTAPE_PROGRAM, " record --max-wait 60s -o ", folder.File("x.tape"), " -- ");
  const ShellResult recorded = Shell(absl::StrCat("cd ", folder.path(), " && { ", Replaced(program.command_line, record), "; }"));
  EXPECT_EQ(recorded.status, bare.status);
  EXPECT_EQ(recorded.output, bare.output);
  EXPECT_EQ(bare.status, 0) << bare.output;
  const ReadTrace trace = ReadAndCheck(folder.File("x.tape"));
  EXPECT_TRUE(trace.summary.complete);
  EXPECT_TRUE(trace.damage.empty());
  EXPECT_GT(trace.counts.at(Op::kMalloc), 50u);
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

INSTANTIATE_TEST_SUITE_P(
    Debian, RealPrograms,
    ::testing::Values(
        RealProgram{"gxx", "printf '#include <map>\\n#include <string>\\nstd::map<std::string,int> m; int main(){return m[\"a\"];}' > a.cc; "
                           "RECORD $(g++ -print-prog-name=cc1plus) -quiet -imultiarch x86_64-linux-gnu -O1 a.cc -o a.s && wc -l < a.s", false, "g++"},
        RealProgram{"python", kPython, false, "/usr/bin/python3"},
        RealProgram{"git", "git init -q . && echo x > f && git -c user.name=a -c user.email=a@b add f && RECORD git status --short f", false, "git"},
        RealProgram{"sqlite3", "RECORD sqlite3 a.db 'create table t(a,b); with recursive c(x) as (select 1 union all select x+1 from c where "
                               "x<20000) insert into t select x, hex(x) from c; select count(*), sum(a) from t;'", false, "sqlite3"},
        RealProgram{"perl", "RECORD perl -e 'my %h; $h{$_} = [$_ x 3] for 1..20000; print scalar(keys %h), \"\\n\"'", false, "perl"},
        RealProgram{"xz", "head -c 2000000 /dev/zero > z; RECORD xz -k -T2 z; xz -dc z.xz | cksum", false, "xz"},
        RealProgram{"perl_on_jemalloc", "LD_PRELOAD=libjemalloc.so.2 RECORD perl -e 'my %h; $h{$_} = [$_] for 1..20000; print scalar(keys %h), \"\\n\"'",
                    false, "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2"},
        RealProgram{"perl_on_tcmalloc", "LD_PRELOAD=libtcmalloc_minimal.so.4 RECORD perl -e 'my %h; $h{$_} = [$_] for 1..20000; print scalar(keys %h), \"\\n\"'",
                    false, "/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4"},
        RealProgram{"perl_on_mimalloc", "LD_PRELOAD=$(ls /usr/lib/x86_64-linux-gnu/libmimalloc.so.* | head -1) RECORD perl -e 'my %h; $h{$_} = [$_] for 1..20000; print "
                    "scalar(keys %h), \"\\n\"'", false, "perl"},
        RealProgram{"node", "RECORD node -e 'let m = new Map(); for (let i = 0; i < 1e5; i++) m.set(i, \"x\" + i); console.log(m.size)'", true, "node"},
        RealProgram{"java", "RECORD java -XshowSettings:none -version 2>&1 | wc -l", true, "java"},
        RealProgram{"redis", "exec 2>&1; RECORD redis-server --port 0 --unixsocket $PWD/s --save '' --daemonize no --dir . > log & sleep 1; "
                             "redis-cli -s s debug populate 20000 > /dev/null; redis-cli -s s bgsave; sleep 1; redis-cli -s s dbsize; "
                             "redis-cli -s s shutdown nosave; wait; test -s dump.rdb && echo saved", true, "redis-server"}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace heaptape
