// The shape of a program's allocations, without its events: what `heaptape synth` makes traces from.
//
// A profile is a sequence of phases. Each phase has classes of objects (a range of sizes, how often such
// an object is started, by which calls, how long it lives and how its life ends) and threads (how often
// each runs and for how many calls at a time). Lifetimes are counted in allocations: an object of lifetime
// 3 is due after three further objects have been started, by whichever thread, and freed as soon as the
// thread that frees it runs. Weights are relative
// among their neighbours and need not add up to one.
//
// Kept out, and so lost by a fit: which thread prefers which sizes, the order beyond what lifetimes imply,
// failed calls, malloc_trim and mallopt, page touching, stacks.

#ifndef HEAPTAPE_TRACES_SYNTH_PROFILE_H_
#define HEAPTAPE_TRACES_SYNTH_PROFILE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "traces/event.h"
#include "traces/trace_reader.h"

namespace heaptape {

// Values from `low` to `high`, both included, all equally likely.
struct WeightedRange {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  double weight = 1;

  friend bool operator==(const WeightedRange&, const WeightedRange&) = default;
};

struct WeightedCall {
  Op op = Op::kMalloc;             // one that starts an object
  std::uint64_t alignment_bytes = 0;
  double weight = 1;

  friend bool operator==(const WeightedCall&, const WeightedCall&) = default;
};

struct WeightedClass {
  std::size_t class_index = 0;     // into the same phase's classes
  double weight = 1;

  friend bool operator==(const WeightedClass&, const WeightedClass&) = default;
};

struct SynthClass {
  std::uint64_t low_bytes = 0;
  std::uint64_t high_bytes = 0;
  double weight = 1;                          // of objects started in this class; 0: by realloc only
  double permanent_share = 0;                 // of its objects, never freed
  double realloc_share = 0;                   // of the lives that end, by a realloc to another class
  std::vector<WeightedCall> calls;            // that start such an object
  std::vector<WeightedRange> lifetimes;       // in allocations; of the objects that are not permanent
  std::vector<WeightedClass> realloc_targets; // needed where realloc_share is not 0

  friend bool operator==(const SynthClass&, const SynthClass&) = default;
};

struct SynthThread {
  double weight = 1;      // how often it is the next to run
  double run_calls = 1;   // mean calls it makes before another runs

  friend bool operator==(const SynthThread&, const SynthThread&) = default;
};

struct SynthPhase {
  std::uint64_t call_count = 0;
  double calls_per_second = 0;
  double cross_thread_free_share = 0;  // of frees, made by another thread than allocated
  std::vector<SynthThread> threads;    // index 0 is the first thread
  std::vector<SynthClass> classes;

  friend bool operator==(const SynthPhase&, const SynthPhase&) = default;
};

struct SynthProfile {
  std::vector<SynthPhase> phases;
  std::size_t repeat_from = 0;  // a longer trace goes on with this phase after the last

  std::uint64_t call_count() const;  // of all phases, each once

  friend bool operator==(const SynthProfile&, const SynthProfile&) = default;
};

// OK where a trace can be made of it; else InvalidArgument that names phase, class and field.
absl::Status CheckProfile(const SynthProfile& profile);

// JSON with a schema_version; reading it back gives an equal profile.
std::string ProfileToJson(const SynthProfile& profile);
// `name` stands in messages. Nothing in the text is trusted.
absl::StatusOr<SynthProfile> ProfileFromJson(const std::string& text, const std::string& name);

// What a fit keeps of each live object, beside the reader.
inline constexpr std::uint64_t kFitBytes = 16;

// Fits a profile to a recorded trace, in `phase_count` stretches of equally many events; the second half
// repeats. Reads the trace once from its start. Lifetimes of objects that were alive at the end are
// estimated as in survival analysis (the actuarial life table); where fewer than 20 objects of a class
// and phase were left to observe and not all of those were seen to end, the class's objects of all phases are
// taken, then all objects.
absl::StatusOr<SynthProfile> FitProfile(TraceReader& reader, std::size_t phase_count = 8);

// A distribution as users write it, as ranges no wider than an eighth of their value:
//   "64"                 always 64
//   "16-4K"              from 16 to 4096, equally likely per octave
//   "exponential/1000"   of mean 1000
//   "lognormal/48/1.5"   of median 48, standard deviation 1.5 of the natural logarithm
//   "16:60,64-1K:39,1M:1"  a list of these with weights
// Suffixes K, M, G are powers of 1024 where `binary`, else of 1000. Values stop at 2^40.
absl::StatusOr<std::vector<WeightedRange>> ParseDistribution(const std::string& text, bool binary);

double MeanOf(const std::vector<WeightedRange>& ranges);

// "10M", "2.5K", "300"; suffixes as above.
absl::StatusOr<std::uint64_t> ParseCount(const std::string& text, bool binary);

}  // namespace heaptape

#endif  // HEAPTAPE_TRACES_SYNTH_PROFILE_H_
