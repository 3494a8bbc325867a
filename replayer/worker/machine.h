// The machine the allocator under test believes to run on: recorded time, recorded CPU count, fixed random
// bytes; and what it asks of the kernel, counted.
//
// Two ways lead here. Symbols the worker exports (clock_gettime, getrandom, sched_getaffinity, mmap ...)
// catch what libraries call through their PLT. Syscall User Dispatch, where the kernel has it, catches the
// rest by SIGSYS: what the C library's own malloc asks for with internal calls. Both end in Answer().
//
// Nothing here allocates or needs TLS, so it works under any FS base and inside a signal handler.

#ifndef HEAPTAPE_REPLAYER_WORKER_MACHINE_H_
#define HEAPTAPE_REPLAYER_WORKER_MACHINE_H_

#include <cstdint>

#include "replayer/worker/protocol.h"
#include "replayer/worker/resident.h"

namespace heaptape::worker {

struct Machine {
  // Set once, before the allocator is loaded.
  SharedHeader* shared = nullptr;
  ResidentMeter meter;
  std::uint64_t baseline_bytes = 0;
  bool dispatch = false;  // Syscall User Dispatch works

  // Counting begins when the allocator has been loaded.
  bool counting = false;
  CallCounts calls = {};
  std::uint64_t lazy_free_calls = 0;
  std::uint32_t threads_refused = 0;
  std::uint32_t calls_refused = 0;
  std::uint32_t first_refused_call = 0;
  std::uint64_t peak_bytes = 0;
  std::uint64_t peak_counter_bytes = 0;  // what inexact counters showed when the peak was last looked at
  std::uint64_t peak_event = 0;
  std::uint64_t peak_time_ns = 0;

  // The present clock span (protocol.h).
  std::uint64_t span_start_ns = 0;
  std::uint64_t span_ns = 0;
  std::uint64_t span_first_event = 0;
  std::uint64_t span_events = 0;

  std::uint64_t real_start_ns = 0;  // RealNow() when the run began
  std::uint64_t random_state = 0;
  std::uint32_t thread = 0;  // whose events are being replayed
};

extern Machine machine;

// Sets up signals and Syscall User Dispatch. `machine.shared` must be set.
void StartMachine();

// From here on the calling thread's system calls are caught while WatchCalls(true) holds. For each thread
// that runs allocator code.
void WatchThisThread();
void WatchCalls(bool watch);

// Time of the recording at the event being replayed.
std::uint64_t VirtualNow();
// The real monotonic clock.
std::uint64_t RealNow();

// Heap RSS now; keeps the peak.
std::uint64_t MeasureHeap();
// Stops the run where heap RSS is beyond the memory limit. Else it leaves no trace in the figures: the limit moves none.
void CheckMemoryLimit();

// Stops the run with a sentence in the findings. Does not return.
[[noreturn]] void StopWorker(Phase phase, const char* sentence);
// Ends the process after the findings are complete.
[[noreturn]] void FinishWorker(Phase phase);

// Answers one system call of the allocator: as the recorded machine would, or by passing it on.
long Answer(long number, long a, long b, long c, long d, long e, long f);

}  // namespace heaptape::worker

#endif  // HEAPTAPE_REPLAYER_WORKER_MACHINE_H_
