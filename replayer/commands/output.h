// How commands put results before the user: tables on the terminal, files written whole or not at all.

#ifndef HEAPTAPE_REPLAYER_COMMANDS_OUTPUT_H_
#define HEAPTAPE_REPLAYER_COMMANDS_OUTPUT_H_

#include <map>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "replayer/export/summary.h"
#include "replayer/export/table.h"

namespace heaptape::commands {

// Width of the terminal behind stdout and whether it takes colour; without one neither.
TerminalOptions TerminalForStdout();

// Takes one of the names and stores its value; anything else is refused with the names there are.
template <typename Value>
CLI::Validator OneOf(const std::map<std::string, Value>& values) {
  return CLI::Validator(
      [values](std::string& text) -> std::string {
        const auto found = values.find(text);
        if (found != values.end()) {
          text = std::to_string(static_cast<int>(found->second));
          return "";
        }
        std::string names;
        for (const auto& [name, value] : values) names += (names.empty() ? "" : ", ") + name;
        return "\"" + text + "\" is none of: " + names;
      },
      "");
}

// The words the user typed, as the kernel keeps them; the first is "heaptape".
std::vector<std::string> OwnCommand();

// --baseline and --sort.
void AddViewOptions(CLI::App& command, ViewOptions& view);

// --force, in the same words everywhere. Without it no command replaces a file (traces/output_file.h).
void AddForceOption(CLI::App& command, bool& force);

// Refuses, before any work is done, what WriteOutput() of traces/output_file.h would refuse in the end. Empty names ask
// nothing. Leaves no file.
absl::Status CheckOutputs(const std::vector<std::string>& paths, bool force);

absl::StatusOr<std::string> ReadWhole(const std::string& path);

// Reads result files that `heaptape replay -o` wrote. Runs of the same recording come together, whichever
// file they are from.
absl::StatusOr<std::vector<ReplayReport>> ReadResults(const std::vector<std::string>& paths);

// Writes to the standard output.
absl::Status Print(const std::string& text);

}  // namespace heaptape::commands

#endif  // HEAPTAPE_REPLAYER_COMMANDS_OUTPUT_H_
