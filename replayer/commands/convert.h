// heaptape convert: traces from other tools' recordings, and the other way.

#ifndef HEAPTAPE_REPLAYER_COMMANDS_CONVERT_H_
#define HEAPTAPE_REPLAYER_COMMANDS_CONVERT_H_

#include "CLI/CLI.hpp"

namespace heaptape::commands {

// As the functions in commands.h.
void AddConvert(CLI::App& program, int& status);

}  // namespace heaptape::commands

#endif  // HEAPTAPE_REPLAYER_COMMANDS_CONVERT_H_
