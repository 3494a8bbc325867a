// The man page and the shell completions, made from the same options that `--help` prints.

#ifndef HEAPTAPE_REPLAYER_COMMANDS_MANUAL_H_
#define HEAPTAPE_REPLAYER_COMMANDS_MANUAL_H_

#include <string>

#include "CLI/CLI.hpp"

namespace heaptape::commands {

// Roff for section 1: heaptape(1), and heaptape-COMMAND(1).
std::string ManPage(const CLI::App& program);
std::string ManPage(const CLI::App& program, const CLI::App& command);
std::string BashCompletion(const CLI::App& program);
std::string ZshCompletion(const CLI::App& program);
std::string FishCompletion(const CLI::App& program);

// Adds the hidden command `heaptape manual man FOLDER` and `heaptape manual bash|zsh|fish`, which the build calls. Last: it
// shows the commands added before it.
void AddManual(CLI::App& program, int& status);

}  // namespace heaptape::commands

#endif  // HEAPTAPE_REPLAYER_COMMANDS_MANUAL_H_
