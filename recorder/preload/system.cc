#include "recorder/preload/system.h"

namespace heaptape {

std::atomic<bool> may_not_sleep;
std::atomic<bool> may_not_ask_time;
std::atomic<std::uint64_t> counted_time;

namespace {
std::uint32_t sleep_word;
constexpr std::uint64_t kPauseNs = 40;  // of one pause instruction, roughly
}  // namespace

void Sleep(std::uint64_t ns) {
  if (UNLIKELY(may_not_sleep.load(std::memory_order_relaxed))) {
    for (std::uint64_t i = 0; i < ns / kPauseNs; ++i) __builtin_ia32_pause();
  } else {
    timespec duration = {static_cast<time_t>(ns / 1000000000), static_cast<long>(ns % 1000000000)};
    SystemCall(SYS_futex, reinterpret_cast<long>(&sleep_word), FUTEX_WAIT_PRIVATE, 0, reinterpret_cast<long>(&duration));
  }
  if (UNLIKELY(may_not_ask_time.load(std::memory_order_relaxed))) counted_time.fetch_add(ns, std::memory_order_relaxed);
}

}  // namespace heaptape
