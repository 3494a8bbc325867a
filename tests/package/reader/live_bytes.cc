// Follows the live bytes of a trace: prints what was recorded, their peak and what was never freed.

#include <heaptape/trace.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <vector>

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: live_bytes TRACE\n");
    return 2;
  }
  try {
    heaptape::Trace trace(argv[1]);
    std::vector<std::uint64_t> slots(trace.summary().peak_live_objects);
    std::uint64_t live = 0, peak = 0, objects = 0;
    for (heaptape::Batch batch; trace.Next(batch);) {
      for (const heaptape_event& event : batch.events) {
        if (heaptape::Failed(event) || event.operation > HEAPTAPE_PVALLOC) continue;
        if (event.slot >= slots.size()) slots.resize(event.slot + std::size_t{1});
        const bool resized = (event.operation == HEAPTAPE_REALLOC || event.operation == HEAPTAPE_REALLOCARRAY) && !heaptape::Fresh(event);
        if (event.operation == HEAPTAPE_FREE) {
          --objects;
        } else if (!resized) {
          ++objects;
        }
        live += event.size - slots[event.slot];
        slots[event.slot] = event.operation == HEAPTAPE_FREE ? 0 : event.size;
        peak = std::max(peak, live);
      }
    }
    std::printf("program %s\n", trace.info().program);
    std::printf("duration_ns %llu\n", static_cast<unsigned long long>(trace.summary().duration_ns));
    std::printf("peak_live_bytes %llu\n", static_cast<unsigned long long>(peak));
    std::printf("never_freed_bytes %llu\n", static_cast<unsigned long long>(live));
    std::printf("never_freed_objects %llu\n", static_cast<unsigned long long>(objects));
    std::printf("resident_samples %zu\n", trace.Resident().size());
    for (const std::string& sentence : trace.Damage()) std::fprintf(stderr, "live_bytes: %s\n", sentence.c_str());
  } catch (const heaptape::Error& error) {
    std::fprintf(stderr, "live_bytes: %s\n", error.what());
    return 1;
  }
  return 0;
}
