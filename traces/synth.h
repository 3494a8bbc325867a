// Makes a trace from the shape of a program (synth_profile.h).
//
// Deterministic: the same profile, options and writer give the same bytes. Streaming: memory is 16 bytes
// per live object beside the writer's own, whatever the length. The live set is left alive at the end, as
// by a program that is killed.

#ifndef HEAPTAPE_TRACES_SYNTH_H_
#define HEAPTAPE_TRACES_SYNTH_H_

#include <atomic>
#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "traces/synth_profile.h"
#include "traces/trace_writer.h"

namespace heaptape {

struct SynthOptions {
  std::uint64_t call_count = 0;                  // 0: the profile's phases once
  std::uint64_t seed = 0;
  std::uint64_t time_resolution_ns = 1'000'000;  // a time mark about this often
  std::function<void(std::uint64_t calls_done)> progress;  // called every few hundred thousand calls
  const std::atomic<bool>* cancelled = nullptr;  // then Cancelled, the writer unfinished
};

// Appends the calls to `writer`, which the caller finishes. InvalidArgument where CheckProfile fails.
absl::Status WriteSynthetic(const SynthProfile& profile, const SynthOptions& options, TraceWriter& writer);

}  // namespace heaptape

#endif  // HEAPTAPE_TRACES_SYNTH_H_
