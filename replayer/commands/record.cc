// heaptape record: runs a program and records what it allocates.

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "recorder/launch.h"
#include "recorder/service.h"
#include "replayer/commands/commands.h"
#include "replayer/export/external_text.h"
#include "replayer/export/format.h"
#include "traces/trace_info.h"

namespace heaptape::commands {
namespace {

struct RecordArguments {
  std::vector<std::string> command;
  std::string output;
  RecorderOptions recorder;
  bool no_big_blocks = false;
  bool verbose = false;
  std::string service;
  bool install = false;
  bool remove = false;
};

std::string DefaultOutput(const std::string& program) {
  return absl::StrCat(program.substr(program.rfind('/') + 1), ".tape");
}

std::string Count(std::uint64_t number) {
  if (number < 1000) return absl::StrCat(number);
  return absl::StrCat(Count(number / 1000), absl::StrFormat(",%03d", number % 1000));
}

// One line where somebody looks, and whatever somebody must know.
void Tell(LaunchResult result, const RecordArguments& arguments) {
  const bool verbose = arguments.verbose;
  for (std::string* text : {&result.output, &result.ended_early, &result.error}) *text = PlainText(*text);
  auto figure = [&result](const char* name) {
    const auto found = result.figures.find(name);
    return found == result.figures.end() ? std::uint64_t{0} : found->second;
  };
  if (figure("daemon")) {
    std::fprintf(stderr, "heaptape: the program went on as a daemon, process %s, and is still being recorded: see "
                 "heaptape ctl %s status.\n", absl::StrCat(figure("daemon")).c_str(), absl::StrCat(figure("daemon")).c_str());
  } else if (verbose || isatty(STDERR_FILENO)) {
    std::fprintf(stderr, "heaptape: %s: %s events, %.1f MB", result.output.c_str(), Count(figure("events")).c_str(),
                 static_cast<double>(figure("bytes")) / 1e6);
    if (figure("segments") > 1) std::fprintf(stderr, " in %s segments (heaptape join makes one of them)", Count(figure("segments")).c_str());
    if (figure("waits") > 0) {
      std::fprintf(stderr, "; the program waited %.3f s for the writer", static_cast<double>(figure("wait_ns")) / 1e9);
    }
    std::fputs("\n", stderr);
  }
  if (verbose) {
    for (const auto& [name, value] : result.figures) {
      std::fprintf(stderr, "heaptape:   %s %s\n", name.c_str(), Count(value).c_str());
    }
  }
  if (!result.ended_early.empty()) {
    std::fprintf(stderr, "heaptape: %s: recording ended before the program did: %s. What was recorded until then reads back.\n",
                 result.output.c_str(), result.ended_early.c_str());
  }
  if (!result.error.empty() && result.error != result.ended_early) {
    std::fprintf(stderr, "heaptape: %s\n", result.error.c_str());
  }
  if (const std::uint64_t skipped = figure("big_skipped")) {
    std::fprintf(stderr, "heaptape: %s: %s of %s looks at the pages of large blocks were left out or came late, so peaks under other "
                 "allocators may come out too high or too low. Record on a machine with more idle CPU.\n",
                 result.output.c_str(), Count(skipped).c_str(), Count(skipped + figure("big_waits")).c_str());
  }
  if (const std::uint64_t left_out = figure("children_left_out")) {
    std::fprintf(stderr, "heaptape: %s: %s forked children were left out, because too many were being recorded already. Record the programs "
                 "that fork them one by one.\n", result.output.c_str(), Count(left_out).c_str());
  }
  const UnmatchedFrees unmatched = {.unknown = figure("unknown_frees"), .missed = figure("missed_frees")};
  if (unmatched.HideHeap(figure("events"))) {
    std::fprintf(stderr, "heaptape: %s: %s\n", result.output.c_str(), MissingHeapSentence(unmatched).c_str());
  }
  if (figure("executed") && !arguments.recorder.children) {
    std::fprintf(stderr, "heaptape: %s: the program replaced itself by another, which was not recorded. Record that one, or "
                 "give --children.\n", result.output.c_str());
  }
}

// What became of a recording whose writer has not reported.
void TellWhyNot(const LaunchResult& result, const std::string& program) {
  if (!result.unfinished.empty()) {
    std::fprintf(stderr, "heaptape: %s: the recording's writer ended before it had finished: it was killed. What it had written "
                 "until then can be used; heaptape verify says how far it goes.\n", PlainText(result.unfinished).c_str());
  } else if (!result.finished.empty()) {
    std::fprintf(stderr, "heaptape: %s: is finished, but its writer could not report what it holds. See heaptape inspect.\n",
                 PlainText(result.finished).c_str());
  } else if (!result.error.empty()) {
    std::fprintf(stderr, "heaptape: %s: nothing was recorded: %s\n", PlainText(program).c_str(), PlainText(result.error).c_str());
  } else {
    std::fprintf(stderr, "heaptape: %s: nothing was recorded. If a line \"heaptape: not recording\" is above, it says why; else the "
                 "program replaced its environment or ended at once: give --children where it starts another.\n", PlainText(program).c_str());
  }
}

// Shows what would be written; writes or takes it away only when told to.
int RunService(const RecordArguments& arguments) {
  ServiceOptions options;
  options.unit = arguments.service;
  options.preload_path = PartPath("libheaptape.so");
  options.recorder = arguments.recorder;
  // A relay matters more than its recording: short waits, a bounded disk.
  const RecorderOptions defaults;
  if (options.recorder.max_wait_ns == defaults.max_wait_ns) options.recorder.max_wait_ns = 2'000'000'000;
  if (options.recorder.max_total_wait_ns == 0) options.recorder.max_total_wait_ns = 600'000'000'000;
  if (options.recorder.segment_seconds == 0 && options.recorder.segment_bytes == 0) options.recorder.segment_seconds = 86400;
  if (options.recorder.total_bytes == 0) options.recorder.total_bytes = std::uint64_t{4} << 30;
  if (options.recorder.min_free_bytes == defaults.min_free_bytes) options.recorder.min_free_bytes = std::uint64_t{1} << 30;
  const absl::StatusOr<ServicePlan> plan = PlanService(options);
  if (!plan.ok()) return Fail(plan.status());
  if (arguments.remove) {
    if (absl::Status status = RemoveService(*plan); !status.ok()) return Fail(status);
    std::fprintf(stderr, "heaptape: removed %s. Now run:\n", PlainText(plan->drop_in_path).c_str());
  } else {
    std::printf("# %s\n%s", PlainText(plan->drop_in_path).c_str(), PlainLines(plan->drop_in).c_str());
    if (!plan->warning.empty()) std::fprintf(stderr, "heaptape: %s\n", PlainText(plan->warning).c_str());
    if (!plan->apparmor_path.empty()) std::printf("\n# %s, added:\n%s", PlainText(plan->apparmor_path).c_str(), PlainLines(plan->apparmor_rules).c_str());
    if (!arguments.install) {
      std::fputs("heaptape: nothing was written. Add --install to write this.\n", stderr);
      return kExitDone;
    }
    if (absl::Status status = InstallService(*plan); !status.ok()) return Fail(status);
    std::fputs("heaptape: written. Now run:\n", stderr);
  }
  for (const std::string& command : plan->next_commands) std::fprintf(stderr, "  %s\n", PlainText(command).c_str());
  return kExitDone;
}

int Run(const RecordArguments& arguments) {
  if (!arguments.service.empty()) return RunService(arguments);
  if (arguments.command.empty() || arguments.install || arguments.remove) {
    return Fail(absl::InvalidArgumentError(arguments.command.empty()
                                               ? "record: no program given. Give it and its arguments after --."
                                               : "record: --install and --remove belong to --service."));
  }
  if (arguments.recorder.stack_bytes && arguments.recorder.privacy_level >= 2) {
    return Fail(absl::InvalidArgumentError("record: --stacks names the program's files, which --privacy 2 leaves out. Give one of them."));
  }
  LaunchOptions options;
  options.preload_path = PartPath("libheaptape.so");
  options.output = arguments.output.empty() ? DefaultOutput(arguments.command[0]) : arguments.output;
  options.recorder = arguments.recorder;
  if (arguments.no_big_blocks) options.recorder.big_blocks = 0;
  if (options.recorder.privacy_level >= 2) {
    options.recorder.time_resolution_ns = std::max<std::uint64_t>(options.recorder.time_resolution_ns, 1'000'000'000);
  }
  const absl::StatusOr<LaunchResult> result = RunRecorded(arguments.command, options);
  if (!result.ok()) return Fail(result.status());
  if (result->recorded) {
    Tell(*result, arguments);
  } else {
    TellWhyNot(*result, arguments.command[0]);
  }
  return result->exit_status;
}

}  // namespace

void AddRecord(CLI::App& program, int& status) {
  auto arguments = std::make_shared<RecordArguments>();
  CLI::App* command = program.add_subcommand("record", "Run a program and record every allocation it makes");
  RecorderOptions& recorder = arguments->recorder;
  const std::map<std::string, std::uint64_t> durations = {{"ns", 1},
                                                          {"us", 1'000},
                                                          {"ms", 1'000'000},
                                                          {"s", 1'000'000'000},
                                                          {"min", 60'000'000'000},
                                                          {"h", 3'600'000'000'000}};
  const std::map<std::string, std::uint64_t> seconds = {{"s", 1}, {"min", 60}, {"h", 3600}, {"d", 86400}};
  const auto duration = [&durations] { return CLI::AsNumberWithUnit(durations, CLI::AsNumberWithUnit::UNIT_REQUIRED, "TIME"); };
  const auto size = [] { return CLI::AsSizeValue(false); };

  command->add_option("-o,--output", arguments->output, "File to write (default: the program's name with .tape)");
  command->add_flag("--force", recorder.replace, "Replace the output if it exists");
  command->add_option("--time-resolution", recorder.time_resolution_ns,
                      "Keep times in steps of this, e.g. 10ms (the default) or 1s; see recorder/PRIVACY.md")
      ->transform(duration());
  command->add_option("--privacy", recorder.privacy_level,
                      "0: exact start time; 1 (default): start to the hour; 2: no start time, no program name, times in steps of at least 1s")
      ->check(CLI::Range(0, 2));
  command->add_option("--level", recorder.compression_level, "Compression level of zstd (default 3)")->check(CLI::Range(1, 19));
  command->add_option("--segment-size", recorder.segment_bytes, "Begin a new file at this size, e.g. 100MB; as --segment-time")->transform(size());
  command->add_option("--segment-time", recorder.segment_seconds, "Begin a new file after this time, e.g. 1d; `heaptape join` makes one of them")
      ->transform(CLI::AsNumberWithUnit(seconds, CLI::AsNumberWithUnit::UNIT_REQUIRED, "TIME"));
  command->add_option("--total-size", recorder.total_bytes, "Delete the oldest segments beyond this size, e.g. 2GB")
      ->transform(size());
  command->add_option("--min-free", recorder.min_free_bytes, "End the recording when the disk has less free (default 64MB)")
      ->transform(size());
  command->add_option("--max-wait", recorder.max_wait_ns,
                      "Longest single wait of the program for the writer; then the recording ends (default 5s)")
      ->transform(duration());
  command->add_option("--max-total-wait", recorder.max_total_wait_ns, "The same for all waits together (default: none)")
      ->transform(duration());
  command->add_flag("--suspended", recorder.suspended, "Begin only with `heaptape ctl PID start`");
  command->add_flag("--children", recorder.children,
                    "Record forked children and executed programs too, as NAME.PID.tape; a forked one begins with its parent's live set");
  command->add_option("--stacks", recorder.stack_bytes,
                      "Keep a call stack, as module and offset, for each so many bytes allocated (512KiB if none are given)")
      ->expected(0, 1)
      ->default_str("512KiB")
      ->transform(size());
  command->add_option("--service", arguments->service,
                      "Show the systemd drop-in (and AppArmor rule) that records this unit, e.g. tor@default");
  command->add_flag("--install", arguments->install, "With --service: write them");
  command->add_flag("--remove", arguments->remove, "With --service: take them away again");
  command->add_flag("--no-touched-pages", arguments->no_big_blocks, "Do not record which pages of large blocks are used");
  command->add_flag("-v,--verbose", arguments->verbose, "Say what was recorded, with all figures");
  command->add_option("command", arguments->command, "The program and its arguments, after --");
  command->footer(
      "The program's own status is returned, 128 + N if signal N ended it, whatever became of the recording: what went wrong\n"
      "is said on stderr. 1 if the program was not started, 126 if the system refused to start it.\n"
      "Examples:\n"
      "  heaptape record -o guard.tape -- tor -f torrc\n"
      "  heaptape record --segment-time 1d --total-size 2GB -o relay.tape -- tor -f torrc\n"
      "  heaptape record --service tor@default --install      from the relay's next restart on\n"
      "  LD_PRELOAD=libmimalloc.so.2 heaptape record -- redis-server    record it on top of another allocator");
  command->callback([arguments, &status] { status = Run(*arguments); });
}

}  // namespace heaptape::commands
