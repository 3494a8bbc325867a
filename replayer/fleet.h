// Replays several traces against several allocators and seeds: as many workers at once as the machine's
// cores and memory allow, and nothing twice.

#ifndef HEAPTAPE_REPLAYER_FLEET_H_
#define HEAPTAPE_REPLAYER_FLEET_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "allocators/catalog.h"
#include "replayer/replay.h"
#include "replayer/results.h"

namespace heaptape {

// One trace of the fleet.
struct FleetTrace {
  ReplayReport report;             // without runs: identity, ground truth, machine
  std::uint64_t memory_bytes = 0;  // what one replay of it is expected to take
};

// One replay of the fleet: indices into its traces and allocators.
struct FleetJob {
  std::size_t trace = 0;
  std::size_t allocator = 0;
  std::uint64_t seed = 0;
};

// Told how the fleet fares. Calls come from several threads, but never two at a time.
class FleetObserver {
 public:
  virtual ~FleetObserver() = default;
  virtual void Started(const FleetJob&) {}
  virtual void Progressed(const FleetJob&, std::uint64_t /*events_done*/) {}
  virtual void Finished(const FleetJob&, const RunResult&, bool /*from_cache*/) {}
};

struct FleetOptions {
  ReplayOptions replay;                  // `seed` is the first one; `progress` is not used
  std::uint32_t seeds = 1;
  std::uint32_t heap_maps = 0;           // so many moments at which a second replay says where the memory is
  std::uint32_t jobs = 0;                // 0: one per core
  std::uint64_t memory_budget_bytes = 0; // 0: DefaultMemoryLimit()
  std::string cache_folder;              // empty: no cache
  FleetObserver* observer = nullptr;
  // Replay() unless a test says otherwise.
  std::function<absl::StatusOr<RunResult>(const std::string&, const ResolvedAllocator&, const ReplayOptions&)> replay_one;
};

// Reads what the trace says of itself. ResourceExhausted where replaying it by `options` needs more memory than there is.
absl::StatusOr<FleetTrace> DescribeTrace(const std::string& path, const ReplayOptions& options = {});

// One report per trace, its runs in the order allocator, seed, whatever order they ended in. An allocator
// that cannot even be loaded is that run's error. Cancelled if options.replay.cancelled became true: what
// was done by then is in the cache.
absl::StatusOr<std::vector<ReplayReport>> ReplayFleet(const std::vector<FleetTrace>& traces,
                                                      const std::vector<ResolvedAllocator>& allocators,
                                                      const FleetOptions& options);

}  // namespace heaptape

#endif  // HEAPTAPE_REPLAYER_FLEET_H_
