// What one allocator call costs the program that makes it: nanoseconds of CPU per pair of calls.
//
//   build/release/bench/call_benchmark                                                   bare
//   heaptape record -o /tmp/calls.tape -- build/release/bench/call_benchmark             recorded
//   heaptape record --stacks -o /tmp/calls.tape -- build/release/bench/call_benchmark    recorded with call stacks
//
// The difference of two runs, made one after the other, is what recording adds to two events. How often a benchmark is
// repeated is settled by itself, so give both --benchmark_min_time=1.

#include <cstdlib>

#include "benchmark/benchmark.h"

namespace {

void MallocFreePairNs(benchmark::State& state) {
  const auto size = static_cast<std::size_t>(state.range(0));
  for (auto unused : state) {
    void* block = std::malloc(size);
    benchmark::DoNotOptimize(block);
    std::free(block);
  }
  state.SetItemsProcessed(state.iterations() * 2);
}
BENCHMARK(MallocFreePairNs)->ArgName("bytes")->Arg(64)->Arg(1024)->Threads(1)->Threads(3);

void CallocFreePairNs(benchmark::State& state) {
  for (auto unused : state) {
    void* block = std::calloc(1, 64);
    benchmark::DoNotOptimize(block);
    std::free(block);
  }
  state.SetItemsProcessed(state.iterations() * 2);
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
  state.SetItemsProcessed(state.iterations() * 2);
}
BENCHMARK(ReallocPairNs)->Threads(1)->Threads(3);

// Blocks whose touched pages are recorded too.
void BigMallocFreePairNs(benchmark::State& state) {
  for (auto unused : state) {
    void* block = std::malloc(256 << 10);
    benchmark::DoNotOptimize(block);
    std::free(block);
  }
  state.SetItemsProcessed(state.iterations() * 2);
}
BENCHMARK(BigMallocFreePairNs)->Threads(1)->Threads(3);

}  // namespace

BENCHMARK_MAIN();
