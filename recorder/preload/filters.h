// What a seccomp filter forbids is never called.
//
// After the constructor the preload makes one system call, FUTEX_WAIT_PRIVATE as a sleep, and asks for the time, which
// is a system call on machines whose clock the vDSO cannot read. Before a filter is installed through the C library
// (prctl, or syscall as libseccomp does), it is run here on these two calls; where it does not allow one, threads spin
// instead (system.h). A filter that was there at the start allows what every service filter allows. One installed
// behind the C library's back is seen by the writer, within some milliseconds; then nothing is called any more.

#ifndef HEAPTAPE_RECORDER_PRELOAD_FILTERS_H_
#define HEAPTAPE_RECORDER_PRELOAD_FILTERS_H_

#include "recorder/preload/state.h"

namespace heaptape {

// In the constructor.
void NoteFilterAtStart();

// What a coming system call changes: called before prctl and syscall with their arguments.
void NoteFilterCall(long number, long first, long second, long third);

extern std::atomic<bool> knows_filters;
void ForbidWaiting();

// Before a wait.
inline void CheckForUnseenFilter(const Region* region) {
  if (__builtin_expect(region->filtered.load(memory_order_relaxed) != 0, 0) && !knows_filters.load(memory_order_relaxed)) {
    ForbidWaiting();
  }
}

}  // namespace heaptape

#endif  // HEAPTAPE_RECORDER_PRELOAD_FILTERS_H_
