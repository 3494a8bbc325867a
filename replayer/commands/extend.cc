// heaptape extend: a trace of days from a recorded steady stretch.

#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "replayer/commands/commands.h"
#include "replayer/commands/copy_trace.h"
#include "replayer/commands/interrupt.h"
#include "replayer/commands/memory_limit.h"
#include "replayer/commands/output.h"
#include "replayer/commands/progress.h"
#include "replayer/commands/talk.h"
#include "replayer/export/format.h"
#include "traces/extend.h"
#include "traces/output_file.h"

namespace heaptape::commands {
namespace {

constexpr double kNsPerSecond = 1e9;
constexpr double kSecondsPerDay = 86400;
constexpr double kWorthAWarning = 0.05;  // of live bytes, changed over the stretch

struct ExtendArguments {
  std::string input, output;
  double days = 10, from_seconds = -1, to_seconds = 0, pace = 1;
  bool keep_growth = false;
  std::uint64_t memory_limit_bytes = 0;
  bool force = false;
};

void Describe(const ExtendSummary& summary, const TraceWriter& writer, const ExtendArguments& arguments) {
  TellLine(absl::StrCat(arguments.output, ": ", FormatCount(writer.event_count()), " events; the stretch of ", FormatDuration(summary.stretch_ns), " (",
                        FormatCount(summary.stretch_events), " events) stands in it ", summary.repetitions, " times"));
  TellLine(absl::StrCat("carried over at each seam: ", FormatCount(summary.carried_objects), " objects; left over: ",
                        FormatCount(summary.left_over_objects), " (", FormatBytes(static_cast<double>(summary.left_over_bytes)), "), ",
                        arguments.keep_growth ? "kept" : "freed in the next repetition", "; not replaced: ",
                        FormatCount(summary.not_replaced_objects), " (", FormatBytes(static_cast<double>(summary.not_replaced_bytes)), ")"));
  const double start = static_cast<double>(summary.start_live_bytes), end = static_cast<double>(summary.end_live_bytes);
  if (start > 0 && (end / start > 1 + kWorthAWarning || end / start < 1 - kWorthAWarning)) {
    Tell(absl::StrCat("live bytes changed from ", FormatBytes(start), " to ", FormatBytes(end), " over the stretch: it is not steady; choose another with ",
                      "--from and --to"));
  }
}

absl::Status Run(const ExtendArguments& arguments) {
  if (absl::Status free = CheckOutput(arguments.output, arguments.force); !free.ok()) return free;
  const auto reader = TraceReader::Open(arguments.input, LimitTo(arguments.memory_limit_bytes, kExtendBytes));
  if (!reader.ok()) return reader.status();
  const double recorded_seconds = static_cast<double>((*reader)->summary().duration_ns) / kNsPerSecond;
  const double from = arguments.from_seconds < 0 ? recorded_seconds / 2 : arguments.from_seconds;
  if (from >= recorded_seconds || arguments.to_seconds > recorded_seconds) {
    return absl::InvalidArgumentError(absl::StrCat(arguments.input, ": lasts ", recorded_seconds,
                                                   " s; choose --from and --to within that"));
  }
  ExtendOptions options{.stretch_start_ns = static_cast<std::uint64_t>(from * kNsPerSecond),
                        .stretch_end_ns = static_cast<std::uint64_t>(arguments.to_seconds * kNsPerSecond),
                        .duration_ns = static_cast<std::uint64_t>(arguments.days * kSecondsPerDay * kNsPerSecond),
                        .pace = arguments.pace,
                        .keep_growth = arguments.keep_growth,
                        .memory_limit_bytes = arguments.memory_limit_bytes};
  TraceInfo info = (*reader)->info();
  // Nobody shall take it for a recording.
  info.program += " (extended)";
  info.ForgetSegment();
  auto trace = NewTrace::Create(arguments.output, arguments.force, info, {});
  if (!trace.ok()) return trace.status();
  absl::StatusOr<ExtendSummary> summary;
  {
    ProgressBoard board;
    const int bar = board.Add(arguments.output, options.duration_ns / 1'000'000'000, "seconds");
    options.progress = [&](std::uint64_t time_ns) { board.Update(bar, time_ns / 1'000'000'000); };
    options.cancelled = &StopOnInterrupt();
    summary = ExtendTrace(**reader, options, trace->writer());
  }
  if (!summary.ok()) return summary.status();
  if (absl::Status finished = trace->Finish(); !finished.ok()) return finished;
  Describe(*summary, trace->writer(), arguments);
  return absl::OkStatus();
}

}  // namespace

void AddExtend(CLI::App& program, int& status) {
  CLI::App* command = program.add_subcommand("extend", "Makes a trace of days by repeating a recorded steady stretch");
  auto arguments = std::make_shared<ExtendArguments>();
  command->add_option("trace", arguments->input, "Recorded trace")->required()->type_name("TRACE")->check(CLI::ExistingFile);
  command->add_option("-o,--output", arguments->output, "Trace to write")->required()->type_name("FILE");
  AddForceOption(*command, arguments->force);
  command->add_option("--days", arguments->days, "Length of the long trace")->capture_default_str()->check(CLI::Range(1e-6, 3650.0));
  command->add_option("--from", arguments->from_seconds, "Where the steady stretch begins (default: half way)")->type_name("SECONDS")->check(CLI::NonNegativeNumber);
  command->add_option("--to", arguments->to_seconds, "Where it ends (default: with the trace)")->type_name("SECONDS")->check(CLI::PositiveNumber);
  command->add_option("--pace", arguments->pace, "A recorded second of the stretch counts as so many")->capture_default_str()->check(CLI::Range(1e-6, 1e6));
  command->add_flag("--keep-growth", arguments->keep_growth, "What the stretch leaves alive stays, in every repetition");
  AddMemoryLimit(*command, arguments->memory_limit_bytes);
  command->footer(
      "The recording up to the end of the stretch stands in the long trace once, then the stretch is repeated:\n"
      "objects freed in it that are older than it stand for those the repetition before left alive. It shows\n"
      "what an allocator makes of the same work for days; what happens less often than once a stretch is not\n"
      "in it. A lab that votes every 120 s where production votes hourly has --pace 30.\n"
      "Examples:\n"
      "  heaptape extend guard.tape -o long.tape                             ten days at the recorded pace\n"
      "  heaptape extend guard.tape --days 10 --pace 30 -o long.tape         at production's pace\n"
      "  heaptape extend guard.tape --from 600 --to 1200 --days 3 -o long.tape  a chosen stretch");
  command->callback([arguments, &status] {
    const absl::Status result = Run(*arguments);
    status = result.ok() ? kExitDone : Fail(result);
  });
}

}  // namespace heaptape::commands
