#include "tests/recorder/recorded_program.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gtest/gtest.h"

namespace heaptape {

TemporaryFolder::TemporaryFolder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "heaptape-test-XXXXXX").string();
  path_ = mkdtemp(pattern.data()) ? pattern : "";
}

TemporaryFolder::~TemporaryFolder() {
  // While it is removed the writer of some child may finish a file in it.
  Eventually([&] {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
    return !std::filesystem::exists(path_, error);
  });
}

std::vector<std::string> TemporaryFolder::Names() const {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(path_)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

bool TemporaryFolder::Finished(std::size_t files) const {
  const std::vector<std::string> names = Names();
  return names.size() == files &&
         std::none_of(names.begin(), names.end(), [](const std::string& name) { return absl::EndsWith(name, ".part"); });
}

ReadTrace ReadAndCheck(const std::string& path, std::uint64_t keep) {
  ReadTrace trace;
  absl::StatusOr<std::unique_ptr<TraceReader>> reader = TraceReader::Open(path);
  EXPECT_TRUE(reader.ok()) << reader.status();
  if (!reader.ok()) return trace;
  trace.info = (*reader)->info();
  trace.summary = (*reader)->summary();
  std::vector<std::uint64_t> sizes;
  std::vector<bool> alive;
  std::vector<bool> threads(65536, false);
  threads[0] = true;
  std::uint64_t faults = 0;
  for (;;) {
    absl::StatusOr<EventBlock> block = (*reader)->Next();
    EXPECT_TRUE(block.ok()) << block.status();
    if (!block.ok() || block->events.empty()) break;
    for (const Event& event : block->events) {
      ++trace.counts[event.op];
      if (trace.events.size() <= keep) trace.events.push_back(event);
      if (event.op == Op::kThreadStart) {
        faults += threads[event.thread];
        threads[event.thread] = true;
        ++trace.threads_started;
      } else if (IsCall(event.op) && !threads[event.thread]) {
        ++faults;
      }
      if (event.op == Op::kThreadEnd) threads[event.thread] = false;
      if (event.failed()) continue;
      if (StartsObject(event)) {
        if (event.slot >= alive.size()) {
          alive.resize(event.slot + 1, false);
          sizes.resize(event.slot + 1, 0);
        }
        faults += alive[event.slot];
        alive[event.slot] = true;
        sizes[event.slot] = event.size;
        ++trace.live_objects;
        trace.live_bytes += event.size;
      } else if (event.op == Op::kFree || event.op == Op::kRealloc || event.op == Op::kReallocArray) {
        const bool known = event.slot < alive.size() && alive[event.slot];
        faults += !known;
        if (!known) continue;
        trace.live_bytes -= sizes[event.slot];
        if (event.op == Op::kFree) {
          alive[event.slot] = false;
          --trace.live_objects;
        } else {
          sizes[event.slot] = event.size;
          trace.live_bytes += event.size;
        }
      }
    }
  }
  if (trace.events.size() > keep) trace.events.clear();
  EXPECT_EQ(faults, 0u) << path << ": events that contradict what was before";
  if (auto resident = (*reader)->ReadResident(); resident.ok()) trace.resident = *resident;
  if (auto touched = (*reader)->ReadTouched(); touched.ok()) trace.touched = *touched;
  if (auto stacks = (*reader)->ReadStacks(); stacks.ok()) trace.stacks = *stacks;
  if (auto modules = (*reader)->ReadModules(); modules.ok()) trace.modules = *modules;
  trace.damage = (*reader)->damage();
  return trace;
}

std::vector<int> PagesAtTheEnd(const ReadTrace& trace, std::uint64_t bytes) {
  std::vector<int> pages;
  std::uint64_t object = 0;
  for (const Event& event : trace.events) {
    if (!StartsObject(event)) continue;
    if (event.size == bytes) {
      pages.push_back(-1);
      for (const TouchRecord& record : trace.touched) {
        if (record.object != object || record.when != TouchRecord::When::kFree) continue;
        pages.back() = 0;
        for (const PageRange& range : record.present) pages.back() += static_cast<int>(range.page_count) - (range.first_page == 0);
      }
    }
    ++object;
  }
  return pages;
}

LaunchOptions TestLaunchOptions(const std::string& output, const RecorderOptions& options) {
  LaunchOptions launch;
  launch.preload_path = HEAPTAPE_PRELOAD;
  launch.output = output;
  launch.recorder = options;
  // On a machine with other work the writer may be away for seconds.
  if (options.max_wait_ns == RecorderOptions().max_wait_ns) launch.recorder.max_wait_ns = 60'000'000'000;
  return launch;
}

Recorded RecordAndCheck(const std::vector<std::string>& command, const std::string& output, const RecorderOptions& options) {
  Recorded recorded;
  absl::StatusOr<LaunchResult> launch = RunRecorded(command, TestLaunchOptions(output, options));
  EXPECT_TRUE(launch.ok()) << launch.status();
  if (!launch.ok()) return recorded;
  recorded.launch = *launch;
  EXPECT_TRUE(launch->recorded);
  EXPECT_EQ(launch->error, "");
  EXPECT_EQ(launch->ended_early, "");
  EXPECT_EQ(launch->figures["lost"], 0u);
  EXPECT_EQ(launch->figures["unknown_frees"], 0u);
  EXPECT_EQ(launch->figures["missed_frees"], 0u);
  recorded.trace = ReadAndCheck(output);
  EXPECT_TRUE(recorded.trace.summary.complete);
  EXPECT_TRUE(recorded.trace.damage.empty());
  EXPECT_EQ(recorded.trace.summary.event_count, launch->figures["events"]);
  EXPECT_EQ(recorded.trace.summary.unmatched_frees, UnmatchedFrees()) << "counted, and none";
  return recorded;
}

std::string TestProgram(const std::string& name) { return absl::StrCat(HEAPTAPE_TEST_PROGRAMS, "/", name); }

std::string BusyUntil(const std::string& file, int rounds) { return absl::StrCat(TestProgram("busy"), " ", rounds, " ", file); }

void CreateFile(const std::string& path) { EXPECT_TRUE(std::ofstream(path).is_open()) << path; }

ShellResult Shell(const std::string& command_line) {
  ShellResult result;
  FILE* pipe = popen(absl::StrCat("(", command_line, ") 2>&1").c_str(), "r");
  if (!pipe) return {127, ""};
  char buffer[4096];
  std::size_t got;
  while ((got = std::fread(buffer, 1, sizeof(buffer), pipe)) > 0) result.output.append(buffer, got);
  const int status = pclose(pipe);
  result.status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  return result;
}

std::map<std::string, std::string> Control(pid_t program, const std::string& action) {
  std::map<std::string, std::string> values;
  const ShellResult result = Shell(absl::StrCat(HEAPTAPE_PROGRAM, " ctl ", program, " ", action));
  if (result.status != 0) return values;
  for (absl::string_view line : absl::StrSplit(result.output, '\n')) {
    const std::pair<absl::string_view, absl::string_view> words = absl::StrSplit(line, absl::MaxSplits(' ', 1));
    values.emplace(words.first, absl::StripAsciiWhitespace(words.second));
  }
  return values;
}

void FlushAll(pid_t program) {
  // The writer may have been on its way from reading events to obeying: only between the first answer and the second it
  // has surely read.
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(Eventually([&] { return !Control(program, "flush").empty(); }));
}

Running::Running(const TemporaryFolder& folder, const std::string& options, const std::string& command)
    : output_(folder.File("output")) {
  const std::string line = absl::StrCat("exec ", HEAPTAPE_PROGRAM, " record ", options, " -- ", command, " > ", output_, " 2>&1");
  record_ = fork();
  if (record_ == 0) {
    execl("/bin/sh", "sh", "-c", line.c_str(), nullptr);
    _exit(127);
  }
}

Running::~Running() {
  if (record_ < 0) return;
  if (const pid_t recorded = program(); recorded > 0) kill(recorded, SIGKILL);
  kill(record_, SIGKILL);
  waitpid(record_, nullptr, 0);
}

pid_t Running::program() const {
  pid_t child = -1;
  return std::ifstream(absl::StrCat("/proc/", record_, "/task/", record_, "/children")) >> child ? child : -1;
}

int Running::Wait() {
  int status = 0;
  waitpid(record_, &status, 0);
  record_ = -1;
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

std::string Running::Output() const {
  std::ifstream file(output_);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

bool Running::Find(pid_t* program, pid_t* writer) {
  return Eventually([&] {
    *program = this->program();
    return *program > 0 && absl::SimpleAtoi(Control(*program, "status")["writer_pid"], writer);
  });
}

}  // namespace heaptape
