// Ctrl-C for commands that take long: what they are at ends in order, and what was done is kept.

#ifndef HEAPTAPE_REPLAYER_COMMANDS_INTERRUPT_H_
#define HEAPTAPE_REPLAYER_COMMANDS_INTERRUPT_H_

#include <atomic>

namespace heaptape::commands {

// What a second Ctrl-C does, a moment after the first or later: ends the program at once, or nothing, where too much would be left behind.
enum class SecondInterrupt { kEndsProgram, kChangesNothing };

// From now on SIGINT, SIGTERM and SIGHUP set the flag returned. A signal that is ignored stays so: nohup wants
// SIGHUP ignored, and shells SIGINT in what they run in the background.
const std::atomic<bool>& StopOnInterrupt(SecondInterrupt second = SecondInterrupt::kEndsProgram);

// The same flag, for those who only look at it.
const std::atomic<bool>& Interrupted();

}  // namespace heaptape::commands

#endif  // HEAPTAPE_REPLAYER_COMMANDS_INTERRUPT_H_
