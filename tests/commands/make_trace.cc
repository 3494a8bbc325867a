// Writes a small recording of a program that never ran, for the scripts of this folder:
//   make_trace OUT [ROUNDS] [SEED]
// A cache of mixed sizes is filled, then churns at a level while virtual time goes on; two threads.

#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "traces/trace_writer.h"

int main(int argc, char** argv) {
  using namespace heaptape;
  if (argc < 2) return 2;
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 200;
  std::mt19937_64 random(argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 1);
  TraceInfo info;
  info.program = "make_trace";
  info.c_library = "glibc 2.36";
  info.allocator = "glibc";
  info.allocator_version = "2.36";
  info.cpu_count = 4;
  info.time_resolution_ns = 1'000'000;
  auto writer = TraceWriter::Create(argv[1], info);
  if (!writer.ok()) {
    std::fprintf(stderr, "%s\n", std::string(writer.status().message()).c_str());
    return 1;
  }
  TraceWriter& out = **writer;
  out.Append({Op::kThreadStart, 0, 1, 0, 0});
  std::vector<std::uint32_t> live;
  const std::uint64_t sizes[] = {16, 16, 48, 80, 200, 512, 1500, 4000, 20'000};
  for (int round = 0; round < rounds; ++round) {
    for (int step = 0; step < 400; ++step) {
      const auto thread = static_cast<std::uint16_t>(random() % 8 == 0);
      if (live.size() > 5000 && random() % 2 == 0) {
        const std::size_t victim = random() % live.size();
        out.Free(live[victim], thread);
        live[victim] = live.back();
        live.pop_back();
      } else if (live.size() < 6000) {
        live.push_back(out.Allocate(Op::kMalloc, sizes[random() % std::size(sizes)], 0, thread));
      }
    }
    const std::uint64_t time_ns = static_cast<std::uint64_t>(round + 1) * 500'000'000;
    out.Time(time_ns);
    const std::uint64_t heap = 100'000 + static_cast<std::uint64_t>(live.size()) * 3200;
    out.Resident({.time_ns = time_ns, .event_number = out.event_count(), .rss_bytes = heap + 3'000'000,
                  .anonymous_bytes = heap + 100'000, .non_heap_bytes = 100'000, .peak_rss_bytes = heap + 3'000'000});
  }
  return out.Finish().ok() ? 0 : 1;
}
