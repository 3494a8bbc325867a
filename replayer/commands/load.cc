// heaptape load: a trace from the text that dump prints.

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "replayer/commands/commands.h"
#include "replayer/commands/copy_trace.h"
#include "replayer/commands/interrupt.h"
#include "replayer/commands/memory_limit.h"
#include "replayer/commands/output.h"
#include "traces/dump_text.h"
#include "traces/output_file.h"

namespace heaptape::commands {
namespace {

struct Arguments {
  std::string input = "-";
  std::string output;
  bool force = false;
  std::uint64_t memory_limit_bytes = 0;
};

absl::Status Load(const Arguments& arguments) {
  if (absl::Status free = CheckOutput(arguments.output, arguments.force); !free.ok()) return free;
  const bool from_stdin = arguments.input == "-";
  const std::string name = from_stdin ? "standard input" : arguments.input;
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(from_stdin ? stdin : std::fopen(arguments.input.c_str(), "r"),
                                                       from_stdin ? [](std::FILE*) { return 0; } : std::fclose);
  if (file == nullptr) return absl::NotFoundError(absl::StrCat(name, ": cannot open: ", std::strerror(errno)));
  const std::atomic<bool>& interrupted = StopOnInterrupt();
  // No line of a dump is longer, whatever it says of pages or stacks.
  constexpr std::size_t kMaxLine = 1u << 20;
  const auto next_line = [&](std::string& line) {
    line.clear();
    int c;
    while ((c = getc_unlocked(file.get())) != EOF && c != '\n' && line.size() < kMaxLine) line += static_cast<char>(c);
    return (c != EOF || !line.empty()) && !interrupted;
  };
  std::optional<NewTrace> trace;
  absl::Status status = LoadTrace(next_line, [&](const TraceInfo& info) -> absl::StatusOr<TraceWriter*> {
    auto created = NewTrace::Create(arguments.output, arguments.force, info, PackedOptions(12));
    if (!created.ok()) return created.status();
    trace.emplace(*std::move(created));
    return &trace->writer();
  }, name, arguments.memory_limit_bytes);
  if (interrupted) return absl::CancelledError("interrupted");
  if (absl::IsInvalidArgument(status)) return absl::DataLossError(absl::StrCat(name, ": ", status.message()));
  if (status.ok()) status = trace->Finish();
  return status;
}

}  // namespace

void AddLoadTrace(CLI::App& program, int& status) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = program.add_subcommand("load", "Make a trace of what `heaptape dump` printed");
  command->add_option("text", arguments->input, "The text file (default: standard input)");
  command->add_option("-o,--output", arguments->output, "The trace file to write")->required();
  AddForceOption(*command, arguments->force);
  AddMemoryLimit(*command, arguments->memory_limit_bytes);
  command->footer(
      "Examples:\n"
      "  heaptape dump guard.tape | heaptape load -o same.tape\n"
      "  heaptape dump guard.tape | grep -v ' malloc_trim ' | heaptape load -o without.tape");
  command->callback([arguments, &status] {
    if (const absl::Status done = Load(*arguments); !done.ok()) status = Fail(done);
  });
}

}  // namespace heaptape::commands
