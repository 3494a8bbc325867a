// What the benchmarks that write traces share.

#ifndef HEAPTAPE_BENCH_TRACE_BENCHMARK_H_
#define HEAPTAPE_BENCH_TRACE_BENCHMARK_H_

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "benchmark/benchmark.h"

namespace heaptape {

// A folder for one trace, removed with this object.
class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "heaptape-bench-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) std::abort();
    path_ = name;
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string Tape() const { return path_ + "/t.tape"; }

 private:
  std::string path_;
};

// Counter "time_per_event", in seconds of CPU, which the table prints with their unit ("42.1ns"): each iteration did `events`.
inline void SetTimePerEvent(benchmark::State& state, std::uint64_t events) {
  state.counters["time_per_event"] = benchmark::Counter(
      static_cast<double>(events), benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}

// Counter "bytes_per_event" of the folder's trace.
inline void SetBytesPerEvent(benchmark::State& state, const Folder& folder, std::uint64_t events) {
  state.counters["bytes_per_event"] = static_cast<double>(std::filesystem::file_size(folder.Tape())) / static_cast<double>(events);
}

}  // namespace heaptape

#endif  // HEAPTAPE_BENCH_TRACE_BENCHMARK_H_
