// heaptape scrub: a copy of a trace that says less of the machine and the program.

#include <algorithm>
#include <bit>
#include <map>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "replayer/commands/commands.h"
#include "replayer/commands/copy_trace.h"
#include "replayer/commands/memory_limit.h"
#include "replayer/commands/output.h"
#include "traces/memory_limit.h"
#include "traces/output_file.h"
#include "traces/statistics.h"

namespace heaptape::commands {
namespace {

struct Arguments {
  std::string input, output;
  std::uint64_t resolution_ns = 1'000'000'000;
  std::uint64_t rare = 16;
  int level = 2;
  bool force = false;
  std::uint64_t memory_limit_bytes = 0;
};

// Up to the next of eight steps between two powers of two, as allocators' size classes go.
std::uint64_t RoundUp(std::uint64_t size) {
  if (size <= 8) return size;
  const int shift = std::max(0, static_cast<int>(std::bit_width(size - 1)) - 4);
  const std::uint64_t step = std::uint64_t{1} << shift;
  return (size + step - 1) & ~(step - 1);
}

// How often each size is asked for. A trace can have as many sizes as it has events.
absl::StatusOr<std::map<std::uint64_t, std::uint64_t>> CountSizes(TraceReader& reader, const Arguments& arguments) {
  constexpr std::uint64_t kBytesPerSize = 64;
  const std::uint64_t limit = arguments.memory_limit_bytes != 0 ? arguments.memory_limit_bytes : DefaultMemoryLimit();
  std::map<std::uint64_t, std::uint64_t> counts;
  while (true) {
    auto block = reader.Next();
    if (!block.ok()) return block.status();
    if (block->events.empty()) return counts;
    for (const Event& event : block->events)
      if (IsCall(event.op) && event.op != Op::kFree) ++counts[event.size];
    if (counts.size() * kBytesPerSize > limit)
      return OverMemoryLimit(arguments.input, static_cast<double>(counts.size() * kBytesPerSize), absl::StrCat("its ", counts.size(), " sizes"), limit);
  }
}

absl::Status Scrub(const Arguments& arguments) {
  if (absl::Status free = CheckOutput(arguments.output, arguments.force); !free.ok()) return free;
  auto reader = TraceReader::Open(arguments.input, LimitTo(arguments.memory_limit_bytes, kTranscribeBytes));
  if (!reader.ok()) return reader.status();
  TraceInfo info = (*reader)->info();
  info.time_resolution_ns = std::max(info.time_resolution_ns, arguments.resolution_ns);
  info.privacy_level = std::max<std::uint8_t>(info.privacy_level, static_cast<std::uint8_t>(arguments.level));
  info.start_unix_seconds = arguments.level >= 2 ? 0 : info.start_unix_seconds / 3600 * 3600;
  info.segment_start_ns -= info.segment_start_ns % std::max<std::uint64_t>(info.time_resolution_ns, 1);
  if (arguments.level >= 2) info.program.clear();
  auto counts = CountSizes(**reader, arguments);
  if (!counts.ok()) return counts.status();
  TranscribeOptions options;
  options.keep_stacks = arguments.level < 2;
  options.size = [&counts, rare = arguments.rare](std::uint64_t size) {
    const auto count = counts->find(size);
    return count != counts->end() && count->second >= rare ? size : RoundUp(size);
  };
  return CopyTrace(**reader, arguments.output, arguments.force, info, PackedOptions(12), options);
}

}  // namespace

void AddScrub(CLI::App& program, int& status) {
  auto arguments = std::make_shared<Arguments>();
  static const std::map<std::string, std::uint64_t> kUnits = {
      {"ms", 1'000'000}, {"s", 1'000'000'000}, {"min", 60'000'000'000}};
  CLI::App* command = program.add_subcommand("scrub", "Copy a trace so that it says less of program and machine");
  command->add_option("trace", arguments->input, "The trace file")->required();
  command->add_option("-o,--output", arguments->output, "The file to write")->required();
  command->add_option("--time-resolution", arguments->resolution_ns, "Keep times in steps of this (default 1s)")
      ->transform(CLI::AsNumberWithUnit(kUnits, CLI::AsNumberWithUnit::UNIT_REQUIRED, "TIME"));
  command->add_option("--rare-sizes", arguments->rare, "Round sizes that were asked for fewer times than this up to a size class")
      ->capture_default_str();
  command->add_option("--privacy", arguments->level,
                      "1: start time to the hour; 2: no start time, no program name, no call stacks")
      ->check(CLI::Range(1, 2))
      ->capture_default_str();
  AddForceOption(*command, arguments->force);
  AddMemoryLimit(*command, arguments->memory_limit_bytes);
  command->footer(
      "Examples:\n"
      "  heaptape scrub guard.tape -o public.tape\n"
      "  heaptape scrub --time-resolution 100ms --privacy 1 guard.tape -o shared.tape");
  command->callback([arguments, &status] {
    if (const absl::Status done = Scrub(*arguments); !done.ok()) status = Fail(done);
  });
}

}  // namespace heaptape::commands
