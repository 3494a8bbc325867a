// heaptape pack: the same trace in fewer bytes.

#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "replayer/commands/commands.h"
#include "replayer/commands/copy_trace.h"
#include "replayer/commands/memory_limit.h"
#include "replayer/commands/output.h"
#include "replayer/commands/talk.h"
#include "traces/output_file.h"

namespace heaptape::commands {
namespace {

struct Arguments {
  std::string input, output;
  int level = 19;
  bool force = false;
  std::uint64_t memory_limit_bytes = 0;
};

absl::Status Pack(const Arguments& arguments) {
  if (absl::Status free = CheckOutput(arguments.output, arguments.force); !free.ok()) return free;
  auto reader = TraceReader::Open(arguments.input, LimitTo(arguments.memory_limit_bytes, kTranscribeBytes));
  if (!reader.ok()) return reader.status();
  TraceWriterOptions options = PackedOptions(arguments.level);
  options.expected_events = (*reader)->summary().event_count;
  const absl::Status copied = CopyTrace(**reader, arguments.output, arguments.force, (*reader)->info(), options, {});
  if (!copied.ok()) return copied;
  auto packed = TraceReader::Open(arguments.output, LimitTo(arguments.memory_limit_bytes));
  if (!packed.ok()) return packed.status();
  const TraceSummary& before = (*reader)->summary();
  const TraceSummary& after = (*packed)->summary();
  // A trace that lost something cannot come out the same.
  if ((*reader)->loss().empty() && before.digest != after.digest)
    return absl::InternalError(absl::StrCat(arguments.output, ": came out with another content than ", arguments.input, ", which is an error of heaptape; keep the original and report it"));
  const auto per_event = [](const TraceSummary& summary) {
    return static_cast<double>(summary.file_bytes) / static_cast<double>(std::max<std::uint64_t>(summary.event_count, 1));
  };
  TellLine(absl::StrFormat("%s: %.3f bytes an event, was %.3f", arguments.output, per_event(after), per_event(before)));
  return absl::OkStatus();
}

}  // namespace

void AddPack(CLI::App& program, int& status) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = program.add_subcommand("pack", "Compress a trace harder, and give it an index where it has none");
  command->add_option("trace", arguments->input, "The trace file")->required();
  command->add_option("-o,--output", arguments->output, "The file to write")->required();
  command->add_option("--level", arguments->level, "Level of zstd")->check(CLI::Range(1, 22))->capture_default_str();
  AddForceOption(*command, arguments->force);
  AddMemoryLimit(*command, arguments->memory_limit_bytes);
  command->footer(
      "The digest stays the same: `heaptape inspect` shows it.\n"
      "Examples:\n"
      "  heaptape pack guard.tape -o guard.packed.tape\n"
      "  heaptape pack guard.tape.part -o guard.tape       make a whole trace of one that was killed");
  command->callback([arguments, &status] {
    if (const absl::Status done = Pack(*arguments); !done.ok()) status = Fail(done);
  });
}

}  // namespace heaptape::commands
