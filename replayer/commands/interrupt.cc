#include "replayer/commands/interrupt.h"

#include <signal.h>

#include <initializer_list>

namespace heaptape::commands {
namespace {

std::atomic<bool> interrupted{false};

void Interrupt(int signal_number) {
  interrupted.store(true);
  signal(signal_number, SIG_DFL);
}

}  // namespace

const std::atomic<bool>& StopOnInterrupt() {
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) signal(number, Interrupt);
  return interrupted;
}

}  // namespace heaptape::commands
