// System calls, time and sleeping for the preload. Nothing here changes errno, allocates or takes a lock.
//
// A seccomp filter may forbid the two calls that waiting needs. Then threads spin instead of sleeping, and count time
// by how long they meant to wait (filters.h finds out).

#ifndef HEAPTAPE_RECORDER_PRELOAD_SYSTEM_H_
#define HEAPTAPE_RECORDER_PRELOAD_SYSTEM_H_

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>

#include <atomic>
#include <cstdint>

#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

// Within this library: neither looked up nor replaced from outside.
#pragma GCC visibility push(hidden)

namespace heaptape {

inline long SystemCall(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0) {
  long result;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}

extern std::atomic<bool> may_not_sleep;
extern std::atomic<bool> may_not_ask_time;
extern std::atomic<std::uint64_t> counted_time;  // Now() while may_not_ask_time is set

inline std::uint64_t Now() {
  if (UNLIKELY(may_not_ask_time.load(std::memory_order_relaxed))) return counted_time.load(std::memory_order_relaxed);
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1000000000 + static_cast<std::uint64_t>(now.tv_nsec);
}

// Sleeps by FUTEX_WAIT_PRIVATE on a word that nobody wakes.
void Sleep(std::uint64_t ns);

}  // namespace heaptape

#pragma GCC visibility pop

#endif  // HEAPTAPE_RECORDER_PRELOAD_SYSTEM_H_
