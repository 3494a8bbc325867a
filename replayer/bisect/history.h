// Walks an allocator's git history by measuring its commits: a bisection to the first bad (or first good)
// commit, or a sweep over chosen ones.

#ifndef HEAPTAPE_REPLAYER_BISECT_HISTORY_H_
#define HEAPTAPE_REPLAYER_BISECT_HISTORY_H_

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "allocators/git.h"
#include "replayer/bisect/metric.h"
#include "replayer/results.h"

namespace heaptape {

// What came of building one commit and replaying the trace against it.
struct Outcome {
  std::string skip_reason;      // why the commit can't be judged: no build, crash, ...; empty: it can
  std::vector<RunResult> runs;  // one per seed, where it can
  std::vector<std::string> failed_checks;  // of conformance: "aligned_stream"
  bool built_before = false;    // the build came out of the cache
  bool replayed_before = false;
};

// Builds and replays commits. An error status ends the whole walk (disk full, interrupted); what is the
// commit's own fault is in its outcome.
class CommitMeasurer {
 public:
  virtual ~CommitMeasurer() = default;
  virtual absl::StatusOr<Outcome> Measure(const Commit& commit) = 0;
  // Commits that may be asked for next, likeliest first, replacing those named before: they may be built
  // while another is replayed.
  virtual void Expect(const std::vector<std::string>& hashes) { (void)hashes; }
};

enum class Judgement { kGood, kBad, kSkipped };
const char* JudgementName(Judgement judgement);

// One measured commit.
struct Measurement {
  Commit commit;
  Outcome outcome;
  double value = 0;  // of the metric: the median over the runs; nothing where skipped
  double low = 0, high = 0;
  Judgement judgement = Judgement::kSkipped;

  bool measured() const { return outcome.skip_reason.empty(); }
};

// The median and extremes of a metric over runs. `runs` is not empty.
void FillValue(Metric metric, Measurement* measurement);

struct BisectOptions {
  std::string good, bad;  // revisions
  bool first_good = false;  // the bad one is older: find the commit that mended it
  Metric metric = Metric::kSteady;
  Threshold threshold;
  std::string work_directory;  // exists; the clone that git bisects in is made and removed there
  const std::atomic<bool>* cancelled = nullptr;
  // Called before a commit is measured and after. May be empty.
  std::function<void(const Commit&, std::uint64_t remaining)> starting;
  std::function<void(const Measurement&)> measured;
};

// Git takes every ancestor of an old commit for old. Where the change came, was taken back on another line and came again
// with a merge, git ends at the commit with which it came again, though that one's parent is as the newer end already.
struct CameAgain {
  Commit commit;       // what git ended at
  Measurement parent;  // from which the search went on
};

struct Bisection {
  enum class End {
    kFound,
    kOnlySkipped,       // candidates: one of them
    kMergeBaseDiffers,  // first: the commit where the ends' lines part is already as the newer end
    kNoDifference,      // good and bad do not differ by the threshold
    kEndNotMeasured,    // good or bad could not be measured
  };
  End end = End::kNoDifference;
  Measurement good, bad;
  double limit = 0;  // from where on a figure is bad
  std::optional<Measurement> first;   // kFound, kMergeBaseDiffers: the commit that changed it
  // The last that is as the older end: kFound: its first parent; kOnlySkipped: a parent of the candidates that could be measured.
  std::optional<Measurement> before;
  std::optional<Measurement> after;   // kOnlySkipped: the first of the candidates that could be measured
  std::vector<Commit> candidates;     // kOnlySkipped, in the order of history
  std::vector<CameAgain> came_again;  // in the order in which they were met
  std::vector<Measurement> measured;  // all, in the order of history
  std::vector<std::string> asked;     // their hashes in the order of measuring
  std::string log;                    // for `git bisect replay`, of the last search; empty where git was not started
};

// Git's bisection, and where the change turns out to have been there before (CameAgain), another between the older end and
// there, until no parent of what is found is as the newer end.

absl::StatusOr<Bisection> BisectHistory(const GitMirror& mirror, CommitMeasurer& measurer,
                                        const BisectOptions& options);

// Measures the commits in the given order. `cancelled`, `starting` and `measured` as in BisectOptions.
absl::StatusOr<std::vector<Measurement>> SweepHistory(const std::vector<Commit>& commits, Metric metric,
                                                      CommitMeasurer& measurer, const BisectOptions& hooks);

// A change between two neighbours of a sweep (skipped commits between them do not count).
struct Step {
  std::size_t from = 0, to = 0;  // indices of the measurements
  double change = 0;             // to less from, in the metric's unit
};

// The steps by which the higher figure is bad where the lower one is the good end; the largest change first.
std::vector<Step> LargestSteps(const Threshold& threshold, const std::vector<Measurement>& measurements);

}  // namespace heaptape

#endif  // HEAPTAPE_REPLAYER_BISECT_HISTORY_H_
