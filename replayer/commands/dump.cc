// heaptape dump: a trace as text.

#include <map>
#include <memory>
#include <string>

#include "replayer/commands/commands.h"
#include "replayer/commands/memory_limit.h"
#include "replayer/commands/talk.h"
#include "traces/dump_text.h"
#include "traces/trace_reader.h"

namespace heaptape::commands {

void AddDump(CLI::App& program, int& status) {
  struct Arguments {
    std::string input;
    std::string format = "text";
    std::uint64_t memory_limit_bytes = 0;
  };
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = program.add_subcommand("dump", "Print a trace, one line an event");
  command->add_option("trace", arguments->input, "The trace file")->required();
  command->add_option("--format", arguments->format, "text, csv or json-lines; only text has what lies beside the events")
      ->check(CLI::IsMember({"text", "csv", "json-lines"}))
      ->capture_default_str();
  AddMemoryLimit(*command, arguments->memory_limit_bytes);
  command->footer(
      "A line of text is THREAD EVENT SLOT SIZE ALIGNMENT FLAGS; a slot is the place of a live object. Lines with #\n"
      "hold what is known beside the events. traces/FORMAT.md describes them; `heaptape load` reads them.\n"
      "Examples:\n"
      "  heaptape dump guard.tape | grep -c ' malloc '\n"
      "  heaptape dump guard.tape | heaptape load -o same.tape\n"
      "  heaptape dump --format csv guard.tape > guard.csv");
  command->callback([arguments, &status] {
    auto reader = TraceReader::Open(arguments->input, LimitTo(arguments->memory_limit_bytes));
    if (!reader.ok()) {
      status = Fail(reader.status());
      return;
    }
    const DumpFormat format = arguments->format == "csv"          ? DumpFormat::kCsv
                              : arguments->format == "json-lines" ? DumpFormat::kJsonLines
                                                                  : DumpFormat::kText;
    const absl::Status dumped = DumpTrace(**reader, format, [](std::string_view text) {
      return std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
    });
    for (const std::string& sentence : (*reader)->damage()) Tell(sentence);
    if (!dumped.ok()) status = Fail(dumped);
    else if (std::fflush(stdout) != 0) status = Fail(absl::UnavailableError("cannot write to the standard output"));
    else if (!(*reader)->loss().empty()) status = kExitFailed;
  });
}

}  // namespace heaptape::commands
