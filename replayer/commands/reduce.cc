// heaptape reduce: a small trace on which two allocators still differ.

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "allocators/catalog.h"
#include "nlohmann/json.hpp"
#include "replayer/bisect/history.h"
#include "replayer/bisect/reduce.h"
#include "replayer/commands/commands.h"
#include "replayer/commands/history_options.h"
#include "replayer/commands/interrupt.h"
#include "replayer/commands/output.h"
#include "replayer/commands/progress.h"
#include "replayer/commands/talk.h"
#include "replayer/export/external_text.h"
#include "replayer/export/format.h"
#include "replayer/fleet.h"
#include "traces/output_file.h"

namespace heaptape::commands {
namespace {

struct ReduceArguments {
  JudgeOptions judge;
  std::string bad, good, output, min_difference, format = "table";
  ReduceOptions reduce;
};

absl::StatusOr<ResolvedAllocator> ResolveOne(const std::string& specification) {
  absl::StatusOr<std::vector<ResolvedAllocator>> resolved = ResolveAllocators(specification);
  if (!resolved.ok()) return resolved.status();
  if (resolved->size() != 1) return absl::InvalidArgumentError(absl::StrCat(specification, ": name one allocator"));
  return std::move(resolved->front());
}

std::string Figures(Metric metric, const Pair& pair) {
  if (!pair.failure.empty()) return pair.failure;
  return absl::StrCat(FormatMetric(metric, pair.bad), " against ", FormatMetric(metric, pair.good));
}

std::string TraceText(const FilteredTrace& trace) {
  return absl::StrCat(FormatCount(trace.events), " events, ", FormatCount(trace.objects), " objects, ", trace.threads,
                      trace.threads == 1 ? " thread, " : " threads, ", FormatDuration(trace.duration_ns), ", ",
                      FormatBytes(static_cast<double>(trace.file_bytes)));
}

nlohmann::ordered_json TraceJson(const FilteredTrace& trace, const Pair& pair) {
  return {{"events", trace.events},         {"objects", trace.objects}, {"threads", trace.threads}, {"duration_ns", trace.duration_ns},
          {"file_bytes", trace.file_bytes}, {"bad", pair.bad},          {"good", pair.good}};
}

std::string ReductionJson(const ReduceArguments& arguments, Metric metric, const Reduction& reduction) {
  nlohmann::ordered_json json = {{"schema_version", 1},
                                 {"kind", "reduction"},
                                 {"metric", MetricName(metric)},
                                 {"bad", arguments.bad},
                                 {"good", arguments.good},
                                 {"keep_ratio", arguments.reduce.keep_ratio},
                                 {"interrupted", reduction.interrupted},
                                 {"original", TraceJson(reduction.original, reduction.before)},
                                 {"reduced", TraceJson(reduction.reduced, reduction.after)}};
  json["steps"] = nlohmann::ordered_json::array();
  for (const ReduceStep& step : reduction.steps) {
    nlohmann::ordered_json entry = {{"what", step.what}, {"kept", step.kept}};
    entry["trace"] = TraceJson(step.trace, step.pair);
    if (!step.pair.failure.empty()) entry["failure"] = step.pair.failure;
    json["steps"].push_back(entry);
  }
  return JsonText(json) + "\n";
}

int RunReduce(ReduceArguments arguments) {
  const std::atomic<bool>& cancelled = StopOnInterrupt();
  const absl::StatusOr<Metric> metric = ParseMetric(arguments.judge.metric);
  if (!metric.ok()) return Fail(metric.status());
  arguments.reduce.metric = *metric;
  if (*metric == Metric::kGrowth && arguments.min_difference.empty()) arguments.min_difference = "1MB/day";
  if (!arguments.min_difference.empty()) {
    const absl::StatusOr<double> parsed = ParseMetricValue(*metric, arguments.min_difference);
    if (!parsed.ok()) return Fail(parsed.status());
    arguments.reduce.min_difference = *parsed;
  }
  const absl::StatusOr<ResolvedAllocator> bad = ResolveOne(arguments.bad);
  if (!bad.ok()) return Fail(bad.status());
  const absl::StatusOr<ResolvedAllocator> good = ResolveOne(arguments.good);
  if (!good.ok()) return Fail(good.status());
  if (absl::Status free = CheckOutput(arguments.output, arguments.reduce.replace); !free.ok()) return Fail(free);
  const absl::StatusOr<FleetTrace> trace = DescribeTrace(arguments.judge.trace, arguments.judge.replay);
  if (!trace.ok()) return Fail(trace.status());
  absl::StatusOr<WorkFolder> folder = WorkFolder::Make();
  if (!folder.ok()) return Fail(folder.status());

  ProgressBoard board;
  const int bar = board.Add(absl::StrCat("reduce ", arguments.judge.trace), arguments.reduce.max_steps, "steps at most");
  const auto replay_one = [&](const std::string& path, const ResolvedAllocator& allocator, Pair* pair) -> absl::StatusOr<double> {
    Measurement measurement;
    for (std::uint64_t seed = 0; seed < arguments.judge.seeds; ++seed) {
      ReplayOptions replay = arguments.judge.replay;
      replay.worker_path = PartPath("heaptape-worker");
      replay.cancelled = &cancelled;
      replay.seed = seed;
      absl::StatusOr<RunResult> run = Replay(path, allocator, replay);
      if (cancelled) return absl::CancelledError("interrupted");
      if (!run.ok()) return run.status();
      if (run->error.has_value()) {
        pair->failure = absl::StrCat(allocator.DisplayName(), ": ", *run->error);
        return 0;
      }
      measurement.outcome.runs.push_back(*std::move(run));
    }
    FillValue(*metric, &measurement);
    return measurement.value;
  };
  const MeasurePair measure = [&](const std::string& path) -> absl::StatusOr<Pair> {
    Pair pair;
    const absl::StatusOr<double> bad_value = replay_one(path, *bad, &pair);
    if (!bad_value.ok()) return bad_value.status();
    if (!pair.failure.empty()) return pair;
    const absl::StatusOr<double> good_value = replay_one(path, *good, &pair);
    if (!good_value.ok()) return good_value.status();
    pair.bad = *bad_value;
    pair.good = *good_value;
    return pair;
  };
  arguments.reduce.work_directory = folder->path();
  arguments.reduce.cancelled = &cancelled;
  arguments.reduce.memory_limit_bytes = LimitsForReplay(arguments.judge.replay).memory_limit_bytes;
  arguments.reduce.stepped = [&](const ReduceStep& step, std::uint64_t done) {
    TellLine(absl::StrCat(step.kept ? "kept    " : "undone  ", step.what, ": ", Figures(*metric, step.pair), "; ", TraceText(step.trace)));
    board.Update(bar, done);
  };
  const absl::StatusOr<Reduction> reduction = ReduceTrace(arguments.judge.trace, arguments.output, measure, arguments.reduce);
  board.Remove(bar);
  if (!reduction.ok()) {
    if (reduction.status().code() != absl::StatusCode::kCancelled) return Fail(reduction.status());
    Tell("interrupted");
    return kExitFailed;
  }
  if (reduction->original.events_read < trace->report.trace.events) {
    Tell(absl::StrCat(arguments.judge.trace, ": is damaged; reduced from its first ", reduction->original.events_read, " of ",
                      trace->report.trace.events, " events"));
  }
  const std::string text =
      arguments.format == "json"
          ? ReductionJson(arguments, *metric, *reduction)
          : absl::StrCat(PlainText(arguments.judge.trace), ": ", TraceText(reduction->original), "; ", Figures(*metric, reduction->before), "\n",
                         PlainText(arguments.output), ": ", TraceText(reduction->reduced), "; ", Figures(*metric, reduction->after), "\n");
  if (absl::Status printed = Print(text); !printed.ok()) return Fail(printed);
  if (reduction->interrupted) {
    Tell(absl::StrCat("interrupted; ", arguments.output, " is the smallest until then"));
    return kExitFailed;
  }
  return kExitDone;
}

}  // namespace

void AddReduce(CLI::App& program, int& status) {
  auto arguments = std::make_shared<ReduceArguments>();
  CLI::App* command = program.add_subcommand("reduce", "Shrink a recording while two allocators still differ on it");
  AddJudgeOptions(*command, arguments->judge);
  command->add_option("--bad", arguments->bad, "The allocator that needs more: family[@version][:tunable=value,...] or the path of a library")
      ->required()->type_name("NAME");
  command->add_option("--good", arguments->good, "The one that needs less")->required()->type_name("NAME");
  command->add_option("-o,--output", arguments->output, "The small recording")->required()->type_name("FILE");
  AddForceOption(*command, arguments->reduce.replace);
  command->add_option("--keep-ratio", arguments->reduce.keep_ratio, "How much of the excess (bad / good - 1; growth: bad - good) must stay")
      ->check(CLI::Range(0.01, 1.0).description(""))->type_name("SHARE")->capture_default_str();
  command->add_option("--min-difference", arguments->min_difference, "How much the two must differ by at the least (default: 1MiB; growth: 1MB/day)")
      ->type_name("FIGURE");
  command->add_option("--max-steps", arguments->reduce.max_steps, "Stop after so many candidates")
      ->check(CLI::Range(1, 100'000).description(""))->type_name("N")->capture_default_str();
  command->add_option("-f,--format", arguments->format, "What is printed")
      ->check(CLI::IsMember({"table", "json"}).description(""))->type_name("table|json")->capture_default_str();
  command->footer(
      "Tries, over and over: cutting off the end and the beginning, merging threads, dropping objects by chance, by\n"
      "lifetime and by size, rounding sizes. Each candidate is replayed against both. The small recording names\n"
      "neither the recorded program nor when it ran. Ctrl-C leaves the smallest recording until then.\n\n"
      "Examples:\n"
      "  heaptape reduce guard.tape --bad mimalloc@3.0.1 --good mimalloc@2.0.9 -o small.tape\n"
      "  heaptape reduce guard.tape --bad ./libfoo.so --good glibc --metric peak --keep-ratio 0.5 -o small.tape");
  command->callback([arguments, &status] { status = RunReduce(*arguments); });
}

}  // namespace heaptape::commands
