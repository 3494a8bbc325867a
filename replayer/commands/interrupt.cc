#include "replayer/commands/interrupt.h"

#include <signal.h>

namespace heaptape::commands {
namespace {

std::atomic<bool> interrupted{false};

}  // namespace

const std::atomic<bool>& StopOnInterrupt(SecondInterrupt second) {
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction action = {};
    sigaction(number, nullptr, &action);
    if (action.sa_handler == SIG_IGN) continue;
    action = {};
    action.sa_handler = [](int) { interrupted.store(true); };
    action.sa_flags = SA_RESTART | (second == SecondInterrupt::kEndsProgram ? SA_RESETHAND : 0);
    sigaction(number, &action, nullptr);
  }
  return interrupted;
}

const std::atomic<bool>& Interrupted() { return interrupted; }

}  // namespace heaptape::commands
