// What one allocator call costs the program that makes it, and what starting a thread costs: nanoseconds of CPU per
// iteration of each thread.
//
// bench/call_cost runs it bare, recorded, and recorded with call stacks, and prints what recording adds to one event.

#include <pthread.h>

#include <cstdlib>

#include "benchmark/benchmark.h"

namespace {

// How many events a recording gets of one iteration.
void SetEvents(benchmark::State& state, int events) {
  state.counters["events_per_iteration"] = benchmark::Counter(events, benchmark::Counter::kAvgThreads);
}

void MallocFreePairNs(benchmark::State& state) {
  const auto size = static_cast<std::size_t>(state.range(0));
  for (auto unused : state) {
    void* block = std::malloc(size);
    benchmark::DoNotOptimize(block);
    std::free(block);
  }
  SetEvents(state, 2);
}
BENCHMARK(MallocFreePairNs)->ArgName("bytes")->Arg(64)->Arg(1024)->Threads(1)->Threads(3);

void CallocFreePairNs(benchmark::State& state) {
  for (auto unused : state) {
    void* block = std::calloc(1, 64);
    benchmark::DoNotOptimize(block);
    std::free(block);
  }
  SetEvents(state, 2);
}
BENCHMARK(CallocFreePairNs)->Threads(1)->Threads(3);

void ReallocPairNs(benchmark::State& state) {
  void* block = std::malloc(64);
  for (auto unused : state) {
    block = std::realloc(block, 96);
    block = std::realloc(block, 64);
    benchmark::DoNotOptimize(block);
  }
  std::free(block);
  SetEvents(state, 2);
}
BENCHMARK(ReallocPairNs)->Threads(1)->Threads(3);

// Blocks whose touched pages are recorded too.
void BigMallocFreePairNs(benchmark::State& state) {
  for (auto unused : state) {
    void* block = std::malloc(256 << 10);
    benchmark::DoNotOptimize(block);
    std::free(block);
  }
  SetEvents(state, 2);
}
BENCHMARK(BigMallocFreePairNs)->Threads(1)->Threads(3);

// A thread that does nothing: what its start and end cost beside the C library's own, in time of this process.
void ThreadCreateJoinNs(benchmark::State& state) {
  for (auto unused : state) {
    pthread_t thread;
    if (pthread_create(&thread, nullptr, [](void* nothing) { return nothing; }, nullptr) != 0) std::abort();
    pthread_join(thread, nullptr);
  }
}
BENCHMARK(ThreadCreateJoinNs)->MeasureProcessCPUTime();

// The same with one pair of calls in the thread, which gives it a place to record to.
void ThreadThatAllocatesNs(benchmark::State& state) {
  for (auto unused : state) {
    const auto allocate = [](void* nothing) {
      void* volatile block = std::malloc(64);
      std::free(block);
      return nothing;
    };
    pthread_t thread;
    if (pthread_create(&thread, nullptr, allocate, nullptr) != 0) std::abort();
    pthread_join(thread, nullptr);
  }
}
BENCHMARK(ThreadThatAllocatesNs)->MeasureProcessCPUTime();

}  // namespace

BENCHMARK_MAIN();
