// heaptape check: is this build of an allocator good, bad or untestable? For `git bisect run`.

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "allocators/catalog.h"
#include "allocators/git.h"
#include "allocators/process.h"
#include "replayer/bisect/history.h"
#include "replayer/bisect/metric.h"
#include "replayer/commands/commands.h"
#include "replayer/commands/history_options.h"
#include "replayer/commands/interrupt.h"
#include "replayer/commands/progress.h"
#include "replayer/commands/talk.h"
#include "replayer/fleet.h"

namespace heaptape::commands {
namespace {

// What git reads them as.
constexpr int kGood = 0, kBad = 1, kUntestable = 125;

struct CheckArguments {
  JudgeOptions judge;
  std::string allocator, baseline, max, build;
};

// What one allocator needs, or why it can't be said.
struct Verdict {
  double value = 0;
  std::string untestable;
};

absl::StatusOr<Verdict> Measure(const CheckArguments& arguments, Metric metric, const std::string& specification, std::uint64_t events,
                                const std::atomic<bool>& cancelled) {
  const absl::StatusOr<std::vector<ResolvedAllocator>> resolved = ResolveAllocators(specification);
  if (!resolved.ok() && resolved.status().code() == absl::StatusCode::kInvalidArgument) return resolved.status();
  if (!resolved.ok()) return Verdict{.untestable = std::string(resolved.status().message())};
  if (resolved->size() != 1) return absl::InvalidArgumentError(absl::StrCat(specification, ": name one allocator"));
  ProgressBoard board;
  Measurement measurement;
  for (std::uint64_t seed = 0; seed < arguments.judge.seeds; ++seed) {
    ReplayOptions replay = arguments.judge.replay;
    replay.worker_path = PartPath("heaptape-worker");
    replay.cancelled = &cancelled;
    replay.seed = seed;
    const int bar = board.Add(resolved->front().DisplayName(), events, "events");
    replay.progress = [&](std::uint64_t done) { board.Update(bar, done); };
    absl::StatusOr<RunResult> run = Replay(arguments.judge.trace, resolved->front(), replay);
    board.Remove(bar);
    if (cancelled) return absl::CancelledError("interrupted");
    if (!run.ok()) return Verdict{.untestable = std::string(run.status().message())};
    if (run->error.has_value()) return Verdict{.untestable = *run->error};
    if (seed == 0 && run->events_replayed < events) {
      Tell(absl::StrCat(arguments.judge.trace, ": is damaged; judged on its first ", run->events_replayed, " of ", events, " events"));
    }
    measurement.outcome.runs.push_back(*std::move(run));
  }
  FillValue(metric, &measurement);
  return Verdict{.value = measurement.value};
}

int Untestable(const std::string& reason) {
  Tell(absl::StrCat("untestable: ", reason));
  return kUntestable;
}

absl::StatusOr<int> Check(const CheckArguments& arguments, const std::atomic<bool>& cancelled) {
  const absl::StatusOr<Metric> metric = ParseMetric(arguments.judge.metric);
  if (!metric.ok()) return metric.status();
  if (arguments.max.empty() == arguments.baseline.empty()) {
    return absl::InvalidArgumentError("give either --max, the most that is good, or --baseline, an allocator to compare with");
  }
  double limit = 0;
  Threshold threshold = DefaultThreshold(*metric);
  if (!arguments.max.empty()) {
    const absl::StatusOr<double> max = ParseMetricValue(*metric, arguments.max);
    if (!max.ok()) return max.status();
    limit = *max;
  } else if (!arguments.judge.threshold.empty()) {
    absl::StatusOr<Threshold> parsed = ParseThreshold(*metric, arguments.judge.threshold);
    if (!parsed.ok()) return parsed.status();
    threshold = *std::move(parsed);
  }
  // A trace that can't be read is no commit's fault.
  const absl::StatusOr<FleetTrace> trace = DescribeTrace(arguments.judge.trace, arguments.judge.replay);
  if (!trace.ok()) return trace.status();
  const std::uint64_t events = trace->report.trace.events;
  if (!arguments.baseline.empty()) {
    const absl::StatusOr<Verdict> baseline = Measure(arguments, *metric, arguments.baseline, events, cancelled);
    if (!baseline.ok()) return baseline.status();
    if (!baseline->untestable.empty()) {
      return absl::FailedPreconditionError(absl::StrCat("--baseline ", arguments.baseline, ": ", baseline->untestable, "; give another, or --max"));
    }
    limit = threshold.Limit(baseline->value);
    TellLine(absl::StrCat(arguments.baseline, ": ", FormatMetric(*metric, baseline->value)));
  }
  if (!arguments.build.empty()) {
    const absl::StatusOr<ProcessResult> built =
        RunProcess({"sh", "-c", arguments.build}, {.without = GitVariables(), .cancelled = &cancelled});
    if (!built.ok()) return built.status();
    // What it said is the user's to see, on stderr: stdout is for the figure.
    TellLines(built->output);
    TellLines(built->errors);
    if (built->exit_status != 0) return Untestable(absl::StrCat("the build ended with status ", built->exit_status));
  }
  const absl::StatusOr<Verdict> verdict = Measure(arguments, *metric, arguments.allocator, events, cancelled);
  if (!verdict.ok()) return verdict.status();
  if (!verdict->untestable.empty()) return Untestable(verdict->untestable);
  const bool bad = arguments.max.empty() ? verdict->value >= limit : verdict->value > limit;
  std::printf("%s %s, limit %s\n", bad ? "bad" : "good", FormatMetric(*metric, verdict->value).c_str(), FormatMetric(*metric, limit).c_str());
  return bad ? kBad : kGood;
}

int RunCheck(const CheckArguments& arguments) {
  const absl::StatusOr<int> result = Check(arguments, StopOnInterrupt());
  if (result.ok()) return *result;
  Fail(result.status());
  return kExitStopBisect;
}

}  // namespace

void AddCheck(CLI::App& program, int& status) {
  auto arguments = std::make_shared<CheckArguments>();
  CLI::App* command = program.add_subcommand("check", "Judge one build of an allocator, for git bisect run");
  AddJudgeOptions(*command, arguments->judge);
  command->add_option("-a,--allocator", arguments->allocator, "The build to judge: the path of a library, or family[@version][:tunable=value,...]")
      ->required()->type_name("NAME");
  command->add_option("--max", arguments->max, "The most that is good: 200MB, 10MB/day, 2s")->type_name("FIGURE");
  command->add_option("--baseline", arguments->baseline, "Or the allocator to compare with")->type_name("NAME");
  command->add_option("--threshold", arguments->judge.threshold, "With --baseline: from where on it is bad, 1.5x or +200MB (default: 1.5x; growth: +10MB/day)")
      ->type_name("LIMIT");
  command->add_option("--build", arguments->build, "Shell command that builds it first")->type_name("COMMAND");
  command->footer(
      "Exit status, as git bisect run wants it: 0 good, 1 bad, 125 untestable (does not build, cannot be loaded,\n"
      "crashes), 128 what makes every answer wrong and ends the bisection (wrong usage, unreadable recording).\n\n"
      "Examples:\n"
      "  heaptape check guard.tape -a out/libmimalloc.so --max 200MB\n"
      "  heaptape check guard.tape -a out/libmimalloc.so --baseline mimalloc@2.0.9 --threshold 1.5x --metric peak\n"
      "  git bisect start v3.0.1 v2.1.7\n"
      "  git bisect run heaptape check ~/guard.tape -a out/libmimalloc.so --max 200MB \\\n"
      "    --build 'rm -rf out && cmake -S . -B out -DCMAKE_BUILD_TYPE=Release && cmake --build out -j2'");
  command->callback([arguments, &status] { status = RunCheck(*arguments); });
}

}  // namespace heaptape::commands
