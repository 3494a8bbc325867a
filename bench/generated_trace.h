// A trace of any length, made up: small objects of mixed sizes and ends around a steady live set.

#ifndef HEAPTAPE_BENCH_GENERATED_TRACE_H_
#define HEAPTAPE_BENCH_GENERATED_TRACE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace heaptape {

// Writes `event_count` events to `path`, about `live_objects` of them alive at a time, 1 ms of recorded time
// every thousand events. The same arguments give the same trace.
absl::Status WriteGeneratedTrace(const std::string& path, std::uint64_t event_count, std::uint64_t live_objects);

}  // namespace heaptape

#endif  // HEAPTAPE_BENCH_GENERATED_TRACE_H_
