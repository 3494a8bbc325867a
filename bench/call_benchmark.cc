// What one allocator call costs the program that makes it: nanoseconds of CPU for malloc and free together.
//
//   build/release/bench/call_benchmark                                       bare
//   heaptape record -o /tmp/calls.tape -- build/release/bench/call_benchmark recorded
//   heaptape record --stacks ... (where it is offered)                       recorded with stacks
//
// The difference of two runs, made one after the other, is what recording adds to two events.

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

}  // namespace

BENCHMARK_MAIN();
