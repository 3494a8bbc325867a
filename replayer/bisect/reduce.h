// The minimiser: shrinks a trace while the difference that two allocators show on it stays.

#ifndef HEAPTAPE_REPLAYER_BISECT_REDUCE_H_
#define HEAPTAPE_REPLAYER_BISECT_REDUCE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "replayer/bisect/metric.h"
#include "replayer/bisect/trace_filter.h"

namespace heaptape {

// The figures of both allocators on one trace.
struct Pair {
  double good = 0, bad = 0;
  std::string failure;   // a replay that ended early; then the trace is not kept
};

// Must give the same pair for the same trace.
using MeasurePair = std::function<absl::StatusOr<Pair>(const std::string& trace_path)>;

struct ReduceStep {
  std::string what;      // "second half of the time cut off"
  FilteredTrace trace;   // as tried
  Pair pair;
  bool kept = false;
};

struct ReduceOptions {
  Metric metric = Metric::kSteady;  // not kTime, which no replay repeats exactly
  // How much of the excess stays: of (bad / good - 1), or of bad - good for growth.
  double keep_ratio = 0.8;
  double min_difference = 1 << 20;  // bad - good at least, in the metric's unit: small figures are pages, not policy
  std::uint64_t max_steps = 200;
  std::uint64_t memory_limit_bytes = 0;  // of reading and filtering a trace; 0: DefaultMemoryLimit()
  std::string work_directory;       // exists; candidates lie there
  bool replace = false;             // the output, where it is a regular file
  const std::atomic<bool>* cancelled = nullptr;
  std::function<void(const ReduceStep&, std::uint64_t steps_done)> stepped;  // after each; may be empty
};

struct Reduction {
  Pair before, after;
  FilteredTrace original, reduced;
  std::vector<ReduceStep> steps;
  bool interrupted = false;  // cancelled; the trace is the smallest until then
};

// Writes the smallest trace found to `output`. Always the same one for the same input and figures. Tries, over and
// over until nothing gives: cutting the end and the beginning of the time, merging threads, dropping objects by chance,
// by size and by lifetime, rounding sizes. FailedPrecondition where the allocators do not differ to begin with.
absl::StatusOr<Reduction> ReduceTrace(const std::string& input, const std::string& output, const MeasurePair& measure,
                                      const ReduceOptions& options);

}  // namespace heaptape

#endif  // HEAPTAPE_REPLAYER_BISECT_REDUCE_H_
