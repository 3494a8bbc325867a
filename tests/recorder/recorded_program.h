// Records a program and reads the trace back, with everything checked that holds for every trace.

#ifndef HEAPTAPE_TESTS_RECORDER_RECORDED_PROGRAM_H_
#define HEAPTAPE_TESTS_RECORDER_RECORDED_PROGRAM_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "recorder/launch.h"
#include "traces/event.h"
#include "traces/trace_info.h"
#include "traces/trace_reader.h"

namespace heaptape {

// A folder of its own that goes with the test.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::string File(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }
  std::vector<std::string> Names() const;
  // Whether it holds so many files, all of them finished recordings.
  bool Finished(std::size_t files) const;

 private:
  std::string path_;
};

// Waits for what another process is about to do. False after five minutes: a busy machine is slow, not wrong.
template <typename Condition>
bool Eventually(Condition condition) {
  for (int i = 0; i < 30'000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

struct ReadTrace {
  TraceInfo info;
  TraceSummary summary;
  std::vector<Event> events;  // empty where there were more than `keep`
  std::map<Op, std::uint64_t> counts;
  std::uint64_t live_objects = 0;
  std::uint64_t live_bytes = 0;
  std::uint64_t threads_started = 0;
  std::vector<ResidentSample> resident;
  std::vector<TouchRecord> touched;
  std::vector<StackSample> stacks;
  std::vector<Module> modules;
  std::vector<std::string> damage;
};

// Reads every event and fails the test where the trace contradicts itself: an object freed twice or never
// allocated, a slot taken twice, an event of a thread that is not alive.
ReadTrace ReadAndCheck(const std::string& path, std::uint64_t keep = 1'000'000);

// Of each object of `bytes`, in order, how many pages beyond its first, which holds the allocator's header, were
// seen at its end; -1 where there was no look.
std::vector<int> PagesAtTheEnd(const ReadTrace& trace, std::uint64_t bytes);

// Records and requires that a trace came out, complete and with nothing lost or unexplained.
struct Recorded {
  LaunchResult launch;
  ReadTrace trace;
};
Recorded RecordAndCheck(const std::vector<std::string>& command, const std::string& output,
                        const RecorderOptions& options = {});

LaunchOptions TestLaunchOptions(const std::string& output, const RecorderOptions& options = {});

// A program of tests/programs.
std::string TestProgram(const std::string& name);
// tests/programs/busy, which works until the file exists and then for so many rounds of 4,000 events.
std::string BusyUntil(const std::string& file, int rounds = 0);
void CreateFile(const std::string& path);

// Runs a command line in a shell; its status and what it printed on stdout and stderr together.
struct ShellResult {
  int status = 0;
  std::string output;
};
ShellResult Shell(const std::string& command_line);

// `heaptape ctl PROGRAM ACTION`: name and value of each line; empty where the program is not being recorded.
std::map<std::string, std::string> Control(pid_t program, const std::string& action);
// Has the writer read all events published so far, and brings them to the file.
void FlushAll(pid_t program);

// `heaptape record` in the background, with what the test needs to disturb it.
class Running {
 public:
  Running(const TemporaryFolder& folder, const std::string& options, const std::string& command);
  ~Running();
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

  // Of `heaptape record`, once the program's own and the trace are done.
  int Wait();
  std::string Output() const;
  // The recorded program and its writer, from `heaptape ctl`, once it is being recorded.
  bool Find(pid_t* program, pid_t* writer);

  pid_t process() const { return record_; }
  pid_t program() const;  // -1 where there is none (yet)

 private:
  std::string output_;
  pid_t record_ = -1;
};

}  // namespace heaptape

#endif  // HEAPTAPE_TESTS_RECORDER_RECORDED_PROGRAM_H_
