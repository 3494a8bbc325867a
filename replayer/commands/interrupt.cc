#include "replayer/commands/interrupt.h"

#include <signal.h>
#include <time.h>

#include <cstdint>
#include <initializer_list>

namespace heaptape::commands {
namespace {

// `timeout` and supervisors send the same signal to the process and to its group: within this time it is one.
constexpr std::int64_t kOneInterruptNs = 500'000'000;

std::atomic<bool> interrupted{false};
std::atomic<std::int64_t> first_ns{0};

std::int64_t Now() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * std::int64_t{1'000'000'000} + now.tv_nsec;
}

void Stop(int) { interrupted.store(true); }

void StopThenEnd(int number) {
  if (!interrupted.exchange(true)) {
    first_ns.store(Now());
  } else if (Now() - first_ns.load() > kOneInterruptNs) {
    signal(number, SIG_DFL);
    raise(number);
  }
}

}  // namespace

const std::atomic<bool>& StopOnInterrupt(SecondInterrupt second) {
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction action = {};
    sigaction(number, nullptr, &action);
    if (action.sa_handler == SIG_IGN) continue;
    action = {};
    action.sa_handler = second == SecondInterrupt::kEndsProgram ? StopThenEnd : Stop;
    action.sa_flags = SA_RESTART;
    sigaction(number, &action, nullptr);
  }
  return interrupted;
}

const std::atomic<bool>& Interrupted() { return interrupted; }

}  // namespace heaptape::commands
