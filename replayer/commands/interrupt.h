// Ctrl-C for commands that take long: what they are at ends in order, and what was done is kept.

#ifndef HEAPTAPE_REPLAYER_COMMANDS_INTERRUPT_H_
#define HEAPTAPE_REPLAYER_COMMANDS_INTERRUPT_H_

#include <atomic>

namespace heaptape::commands {

// From now on SIGINT, SIGTERM and SIGHUP set the flag returned; a second one ends the program at once.
const std::atomic<bool>& StopOnInterrupt();

}  // namespace heaptape::commands

#endif  // HEAPTAPE_REPLAYER_COMMANDS_INTERRUPT_H_
