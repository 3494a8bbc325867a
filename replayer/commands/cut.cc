// heaptape cut: a part of a trace that replays on its own.

#include <map>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "replayer/commands/commands.h"
#include "replayer/commands/copy_trace.h"
#include "replayer/commands/memory_limit.h"
#include "replayer/commands/output.h"
#include "traces/output_file.h"

namespace heaptape::commands {
namespace {

struct Arguments {
  std::string input, output;
  std::uint64_t from_ns = 0;
  std::uint64_t to_ns = ~std::uint64_t{0};
  bool force = false;
  std::uint64_t memory_limit_bytes = 0;
};

absl::Status Cut(const Arguments& arguments) {
  if (arguments.from_ns >= arguments.to_ns) return absl::InvalidArgumentError("--from must be before --to");
  if (absl::Status free = CheckOutput(arguments.output, arguments.force); !free.ok()) return free;
  auto reader = TraceReader::Open(arguments.input, LimitTo(arguments.memory_limit_bytes, kTranscribeBytes));
  if (!reader.ok()) return reader.status();
  if (arguments.from_ns > (*reader)->summary().duration_ns)
    return absl::InvalidArgumentError(absl::StrCat(arguments.input, ": ends after ", (*reader)->summary().duration_ns / 1'000'000,
                                                   " ms, before --from; choose an earlier one"));
  TranscribeOptions options;
  options.from_ns = arguments.from_ns;
  options.to_ns = arguments.to_ns;
  TraceInfo info = (*reader)->info();
  info.ForgetSegment();
  return CopyTrace(**reader, arguments.output, arguments.force, info, PackedOptions(12), options);
}

}  // namespace

void AddCut(CLI::App& program, int& status) {
  auto arguments = std::make_shared<Arguments>();
  static const std::map<std::string, std::uint64_t> kUnits = {
      {"ms", 1'000'000}, {"s", 1'000'000'000}, {"min", 60'000'000'000}, {"h", 3600'000'000'000}};
  const CLI::AsNumberWithUnit time(kUnits, CLI::AsNumberWithUnit::UNIT_REQUIRED, "TIME");
  CLI::App* command = program.add_subcommand("cut", "Take a part of a trace, beginning with what is alive then");
  command->add_option("trace", arguments->input, "The trace file")->required();
  command->add_option("-o,--output", arguments->output, "The file to write")->required();
  command->add_option("--from", arguments->from_ns, "Time in the recording, e.g. 90s, 5min (default: its start)")->transform(time);
  command->add_option("--to", arguments->to_ns, "Time up to which to take (default: its end)")->transform(time);
  AddForceOption(*command, arguments->force);
  AddMemoryLimit(*command, arguments->memory_limit_bytes);
  command->footer(
      "Examples:\n"
      "  heaptape cut guard.tape --from 10min --to 20min -o middle.tape\n"
      "  heaptape cut guard.tape --to 30s -o start.tape");
  command->callback([arguments, &status] {
    if (const absl::Status done = Cut(*arguments); !done.ok()) status = Fail(done);
  });
}

}  // namespace heaptape::commands
