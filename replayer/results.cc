#include "replayer/results.h"

#include <algorithm>

namespace heaptape {

const char* VerdictName(Verdict verdict) {
  switch (verdict) {
    case Verdict::kStable:
      return "stable";
    case Verdict::kGrowing:
      return "growing";
    case Verdict::kBloating:
      return "bloating";
    case Verdict::kSettling:
      return "settling";
    case Verdict::kFailed:
      return "failed";
  }
  return "failed";
}

const HeapMap& HighestHeapMap(const RunResult& run) {
  return *std::max_element(run.heap_maps.begin(), run.heap_maps.end(),
                           [](const HeapMap& a, const HeapMap& b) { return a.heap_rss_bytes < b.heap_rss_bytes; });
}

const HeapMap& SteadyHeapMap(const RunResult& run) {
  const auto distance = [&](const HeapMap& map) {
    return std::max(map.heap_rss_bytes, run.steady_rss_bytes) - std::min(map.heap_rss_bytes, run.steady_rss_bytes);
  };
  const HeapMap* nearest = nullptr;
  for (const HeapMap& map : run.heap_maps) {
    if (map.time_ns < run.steady_start_ns) continue;
    if (nearest == nullptr || distance(map) < distance(*nearest)) nearest = &map;
  }
  return nearest != nullptr ? *nearest : run.heap_maps.back();
}

}  // namespace heaptape
