// Measures commits for real: builds each, replays the trace against it, remembers what came of it.

#ifndef HEAPTAPE_REPLAYER_BISECT_MEASURE_H_
#define HEAPTAPE_REPLAYER_BISECT_MEASURE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "replayer/bisect/build_ahead.h"
#include "replayer/bisect/history.h"

namespace heaptape {

// Outcomes of earlier walks, one small file each in a folder of the cache. What is in a file that cannot be
// read is measured again. Safe beside other processes. ResultCache keeps replays by the bytes of a library; this
// one is asked by commit, before there is a library: what is known need not be built, and that a commit does not
// build is known as well.
class OutcomeCache {
 public:
  explicit OutcomeCache(std::string folder) : folder_(std::move(folder)) {}

  std::optional<Outcome> Find(const std::string& key) const;
  // Runs are kept without their series.
  absl::Status Keep(const std::string& key, const Outcome& outcome) const;

 private:
  std::string Path(const std::string& key) const;

  std::string folder_;
};

// The conformance checks that a library fails. FailedPrecondition where it can't be loaded.
using CheckFunction = std::function<absl::StatusOr<std::vector<std::string>>(const ResolvedAllocator& allocator)>;

using ReplayFunction = std::function<absl::StatusOr<RunResult>(const ResolvedAllocator& allocator, std::uint64_t seed)>;

struct MeasureOptions {
  // All that a commit's figures depend on but the commit: trace digest, family, build commands and options,
  // tunables, replay settings, heaptape's version. The cache's key.
  std::string identity;
  std::vector<std::uint64_t> seeds = {0};
  bool build_ahead = true;      // not where time is measured: a build beside the replay would be in it
  bool retry_skipped = false;   // measure anew what was skipped before
  const std::atomic<bool>* cancelled = nullptr;
};

class ReplayMeasurer : public CommitMeasurer {
 public:
  ReplayMeasurer(BuildFunction build, CheckFunction check, ReplayFunction replay, OutcomeCache cache, MeasureOptions options);

  absl::StatusOr<Outcome> Measure(const Commit& commit) override;
  void Expect(const std::vector<std::string>& hashes) override;

 private:
  std::string Key(const std::string& hash) const;
  std::optional<Outcome> Known(const std::string& hash) const;
  absl::StatusOr<Outcome> MeasureNow(const Commit& commit);

  const CheckFunction check_;
  const ReplayFunction replay_;
  const OutcomeCache cache_;
  const MeasureOptions options_;
  BuildAhead builds_;
};

}  // namespace heaptape

#endif  // HEAPTAPE_REPLAYER_BISECT_MEASURE_H_
