// heaptape bisect: the commit that made an allocator need more memory (or that mended it), unattended.

#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "replayer/commands/commands.h"
#include "replayer/commands/history_options.h"
#include "replayer/commands/interrupt.h"
#include "replayer/commands/output.h"
#include "traces/output_file.h"

namespace heaptape::commands {
namespace {

struct BisectArguments {
  HistoryOptions history;
  std::string good, bad, log;
  bool first_good = false;
};

int RunBisect(const BisectArguments& arguments) {
  const std::atomic<bool>& cancelled = StopOnInterrupt();
  if (absl::Status free = CheckOutputs({arguments.log}, arguments.history.force); !free.ok()) return Fail(free);
  absl::StatusOr<std::unique_ptr<HistorySession>> session = HistorySession::Open(arguments.history, cancelled);
  if (!session.ok()) return FailOrInterrupted(session.status());
  absl::StatusOr<WorkFolder> folder = WorkFolder::Make();
  if (!folder.ok()) return Fail(folder.status());
  BisectOptions options = (*session)->walk();
  options.good = arguments.good;
  options.bad = arguments.bad;
  options.first_good = arguments.first_good;
  options.work_directory = folder->path();
  absl::StatusOr<Bisection> found = BisectHistory((*session)->mirror(), (*session)->measurer(), options);
  if (!found.ok()) return FailOrInterrupted(found.status());

  HistoryReport report = (*session)->report();
  report.bisection = *std::move(found);
  if (!arguments.log.empty()) {
    if (absl::Status written = WriteOutput(arguments.log, report.bisection->log, arguments.history.force); !written.ok()) return Fail(written);
  }
  if (absl::Status delivered = Deliver(report, arguments.history); !delivered.ok()) return Fail(delivered);
  return report.bisection->end == Bisection::End::kFound ? kExitDone : kExitFailed;
}

}  // namespace

void AddBisect(CLI::App& program, int& status) {
  auto arguments = std::make_shared<BisectArguments>();
  CLI::App* command = program.add_subcommand("bisect", "Find the commit of an allocator that changed what a recording needs");
  AddHistoryOptions(*command, arguments->history);
  command->add_option("--good", arguments->good, "Tag, branch or commit that is good")->required()->type_name("REVISION");
  command->add_option("--bad", arguments->bad, "Tag, branch or commit that is bad")->required()->type_name("REVISION");
  command->add_flag("--first-good", arguments->first_good, "The bad one is older: find the commit that mended it");
  command->add_option("--log", arguments->log, "Write the log that git bisect replay takes")->type_name("FILE");
  command->footer(
      "Both ends are measured first; where they do not differ by the threshold nothing more is done. Commits that\n"
      "do not build, crash or fail a conformance check that both ends pass are skipped as git does. Builds and\n"
      "figures are kept: an interrupted run goes on where it was, and another metric needs no second build.\n"
      "Exit status: 0 found, 1 not found or failed, 2 wrong usage.\n\n"
      "Examples:\n"
      "  heaptape bisect guard.tape --family mimalloc --source ~/src/mimalloc --good v2.1.7 --bad v3.0.1\n"
      "  heaptape bisect guard.tape --family jemalloc --source ~/src/jemalloc --good 5.2.1 --bad 5.3.0 \\\n"
      "    --metric growth --threshold +10MB/day --issue issue.md --log bisect.log\n"
      "  heaptape bisect guard.tape --family mimalloc --source ~/src/mimalloc --first-good --bad v3.0.1 --good v3.1.5\n"
      "  heaptape bisect app.tape --source . --build 'make -j$JOBS' --library build/liballoc.so --good HEAD~40 --bad HEAD");
  command->callback([arguments, &status] { status = RunBisect(*arguments); });
}

}  // namespace heaptape::commands
