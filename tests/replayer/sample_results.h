// Made-up results of two traces, three allocators and three seeds, with a failed run, for the tests of
// exporters, report and gate. Every figure follows from the seed, so the same call gives the same results.

#ifndef HEAPTAPE_TESTS_REPLAYER_SAMPLE_RESULTS_H_
#define HEAPTAPE_TESTS_REPLAYER_SAMPLE_RESULTS_H_

#include <cmath>
#include <string>
#include <vector>

#include "replayer/results.h"
#include "replayer/steady_state.h"

namespace heaptape {

inline RunResult SampleRun(const std::string& allocator, const std::string& version, std::uint64_t seed,
                           double level_bytes, double growth_share) {
  RunResult run;
  run.allocator = allocator;
  run.version = version;
  run.library_path = "/usr/lib/x86_64-linux-gnu/lib" + allocator + ".so";
  run.build_id = "0123456789abcdef";
  run.origin = "Debian package";
  run.settings = {.seed = seed, .cpu_count = 4, .time_scale = 0.7, .vary_signals = true};
  const double level = level_bytes * (1 + 0.01 * static_cast<double>(seed));
  for (std::uint64_t i = 0; i <= 600; ++i) {
    const double share = static_cast<double>(i) / 600;
    const double warm = std::min(1.0, share / 0.2);
    const double wave = 0.004 * std::sin(static_cast<double>(i * (seed + 1)));
    const auto rss = static_cast<std::uint64_t>(level * warm * (1 + growth_share * share + wave)) / 4096 * 4096;
    run.series.push_back({.time_ns = i * 2'000'000'000,
                          .event_number = i * 10'000,
                          .heap_rss_bytes = rss,
                          .live_bytes = static_cast<std::uint64_t>(70e6 * warm),
                          .live_objects = static_cast<std::uint64_t>(1e6 * warm),
                          .lazy_free_bytes = 0});
    if (rss > run.peak_rss_bytes) {
      run.peak_rss_bytes = rss;
      run.peak_time_ns = i * 2'000'000'000;
    }
  }
  run.end_rss_bytes = run.series.back().heap_rss_bytes;
  run.baseline_rss_bytes = 1 << 20;
  run.peak_live_bytes = 70'000'000;
  run.events_replayed = 6'000'000;
  run.minor_faults = 40'000 + seed;
  run.system_calls = {.mmap = 700, .munmap = 300, .madvise = 20, .brk = 5};
  run.wall_ns = 1'200'000'000 + seed * 1'000'000;
  run.cpu_user_ns = 900'000'000;
  run.cpu_system_ns = 200'000'000;
  for (std::uint64_t i = 1; i <= 600; i += 1 + 20 * (i > 1)) {
    const ReplaySample& sample = run.series[std::min<std::uint64_t>(i, 600)];
    HeapMap map{.time_ns = sample.time_ns, .event_number = sample.event_number, .heap_rss_bytes = sample.heap_rss_bytes};
    map.live_bytes = std::min(sample.live_bytes, sample.heap_rss_bytes * 7 / 10);
    map.internal_bytes = map.live_bytes / 10;
    map.wholly_free_bytes = (sample.heap_rss_bytes - map.live_bytes - map.internal_bytes) / 3;
    map.metadata_bytes = 1024;
    map.partly_free_bytes = sample.heap_rss_bytes - map.live_bytes - map.internal_bytes - map.wholly_free_bytes - 1024;
    map.occupancy_pages = {900, 500, 300, 200, 150, 100, 100, 200, 400, 3000 + seed};
    map.classes = {{64, 10'000, 600'000, 200'000}, {256, 1'000, 250'000, 100'000}};
    map.call_sites = {{"buf_add+0x2f (tor)", "tor", "00ff", 4711, 12, 400'000, 150'000, {"tor_malloc_+0x1b (tor)", "buf_add+0x2f (tor)", "main+0x10 (tor)"}},
                      {"libevent-2.1.so.7+0x1f2e", "libevent-2.1.so.7", "", 7982, 3, 90'000, 20'000, {"libevent-2.1.so.7+0x1f2e"}}};
    run.heap_maps.push_back(map);
  }
  run.series_digest = "00112233445566" + std::to_string(10 + seed);
  Judge(run);
  return run;
}

inline ReplayReport SampleReport(const std::string& path, double scale) {
  ReplayReport report;
  report.trace = {path, "d41d8cd98f00b204e9800998ecf8427" + std::to_string(static_cast<int>(scale)), "tor", "glibc 2.36",
                  6'000'000, 1'200'000'000'000, true};
  report.kernel = "6.1.0-13-amd64";
  report.machine = "Example CPU";
  report.heaptape_version = "0.1.0";
  report.command = {"heaptape", "replay", path, "--seeds", "3"};
  for (std::uint64_t seed = 0; seed < 3; ++seed) {
    report.runs.push_back(SampleRun("glibc", "2.36", seed, 217e6 * scale, 0));
    report.runs.push_back(SampleRun("mimalloc", "2.0.9", seed, 97e6 * scale, 0));
    report.runs.push_back(SampleRun("mimalloc", "3.0.1", seed, 200e6 * scale, 0.8));
    report.runs.back().tunables = {{"purge_delay", "10"}};
  }
  RunResult failed;
  failed.allocator = "library";
  failed.version = "1.0";
  failed.events_replayed = 1234;
  failed.error = "signal 11 (Segmentation fault) at event 1234";
  Judge(failed);
  report.runs.push_back(failed);
  for (std::uint64_t i = 0; i <= 120; ++i) {
    const double warm = std::min(1.0, static_cast<double>(i) / 24);
    const auto heap = static_cast<std::uint64_t>(215e6 * scale * warm);
    report.truth.push_back({i * 10'000'000'000, heap, heap + 12'000'000});
  }
  return report;
}

}  // namespace heaptape

#endif  // HEAPTAPE_TESTS_REPLAYER_SAMPLE_RESULTS_H_
