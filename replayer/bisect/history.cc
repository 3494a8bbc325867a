#include "replayer/bisect/history.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>
#include <unordered_map>

#include "absl/strings/str_cat.h"

namespace heaptape {
namespace {

// Each commit once, however often it is asked for.
class Walk {
 public:
  Walk(const GitMirror& mirror, CommitMeasurer& measurer, const BisectOptions& options)
      : mirror_(mirror), measurer_(measurer), options_(options) {}

  absl::StatusOr<Measurement> Measure(const std::string& hash, std::uint64_t remaining) {
    if (const auto known = done_.find(hash); known != done_.end()) return known->second;
    if (options_.cancelled != nullptr && *options_.cancelled) return absl::CancelledError("interrupted");
    absl::StatusOr<Commit> commit = mirror_.Describe(hash);
    if (!commit.ok()) return commit.status();
    if (options_.starting) options_.starting(*commit, remaining);
    absl::StatusOr<Outcome> outcome = measurer_.Measure(*commit);
    if (!outcome.ok()) return outcome.status();
    Measurement measurement{.commit = *std::move(commit), .outcome = *std::move(outcome)};
    if (measurement.measured()) FillValue(options_.metric, &measurement);
    if (limit_.has_value()) {
      Tolerate(&measurement);
      Judge(&measurement);
    }
    asked_.push_back(hash);
    done_.emplace(hash, measurement);
    if (options_.measured) options_.measured(measurement);
    return measurement;
  }

  // What an end itself fails is how this allocator is; what it passes is wanted of all commits.
  void SetEnds(const Measurement& good, const Measurement& bad) {
    for (const Measurement* end : {&good, &bad}) {
      tolerated_.insert(end->outcome.failed_checks.begin(), end->outcome.failed_checks.end());
    }
    ends_known_ = true;
  }

  // From now on, and for those measured before.
  void SetLimit(double limit) {
    limit_ = limit;
    for (auto& [hash, measurement] : done_) Judge(&measurement);
  }

  absl::Status Finish(Bisection* bisection) const {
    absl::StatusOr<std::vector<std::string>> order = mirror_.HistoryOrder(asked_);
    if (!order.ok()) return order.status();
    bisection->asked = asked_;
    for (const std::string& hash : *order) bisection->measured.push_back(done_.at(hash));
    return absl::OkStatus();
  }

 private:
  void Tolerate(Measurement* measurement) const {
    if (!measurement->measured() || !ends_known_) return;
    for (const std::string& check : measurement->outcome.failed_checks) {
      if (tolerated_.count(check)) continue;
      measurement->outcome.skip_reason = absl::StrCat("fails the conformance check ", check, ", which both ends pass");
      return;
    }
  }

  void Judge(Measurement* measurement) const {
    if (!measurement->measured()) return;
    measurement->judgement = measurement->value >= *limit_ ? Judgement::kBad : Judgement::kGood;
  }

  const GitMirror& mirror_;
  CommitMeasurer& measurer_;
  const BisectOptions& options_;
  std::optional<double> limit_;
  std::set<std::string> tolerated_;
  bool ends_known_ = false;
  std::vector<std::string> asked_;
  std::unordered_map<std::string, Measurement> done_;
};

Mark MarkOf(const Measurement& measurement, bool first_good) {
  if (!measurement.measured()) return Mark::kSkip;
  return (measurement.judgement == Judgement::kBad) == first_good ? Mark::kOld : Mark::kNew;
}

// Removes the clone whichever way the walk ends.
struct RemovedAtEnd {
  std::string directory;
  ~RemovedAtEnd() {
    std::error_code error;
    std::filesystem::remove_all(directory, error);
  }
};

// Fills `result` with what a parent of `found`, outside of it, says: the last as the older end, or that the change came
// again; returns that parent then. What git found is `found`: one commit, or those between which it cannot decide.
absl::StatusOr<std::string> LookBefore(const GitMirror& mirror, const BisectOptions& options, Walk& walk,
                                       const std::vector<std::string>& found, Bisection& result) {
  for (const std::string& hash : found) {
    absl::StatusOr<std::vector<std::string>> parents = mirror.Parents(hash);
    if (!parents.ok()) return parents.status();
    for (const std::string& parent : *parents) {
      if (std::find(found.begin(), found.end(), parent) != found.end()) continue;
      absl::StatusOr<Measurement> before = walk.Measure(parent, 0);
      if (!before.ok()) return before.status();
      if (MarkOf(*before, options.first_good) == Mark::kNew) {
        absl::StatusOr<Commit> commit = mirror.Describe(hash);
        if (!commit.ok()) return commit.status();
        result.came_again.push_back({*std::move(commit), *before});
        result.first.reset();
        result.before.reset();
        result.after.reset();
        result.candidates.clear();
        return parent;
      }
      if (!result.before.has_value()) result.before = *std::move(before);
    }
  }
  return "";
}

// Makes a log that replays to the same end. A parent of what was found that stands behind an old commit of another line was
// never asked for, but whoever replays the log is asked for it: there the lines part. LookBefore() has measured it.
absl::Status MakeReplayable(const BisectOptions& options, Walk& walk, GitBisection& git) {
  while (true) {
    if (absl::Status replayed = git.Replay(); !replayed.ok()) return replayed;
    if (git.state().kind != BisectionState::Kind::kTest) return absl::OkStatus();
    const std::string hash = git.state().commit;
    absl::StatusOr<Measurement> measurement = walk.Measure(hash, 0);
    if (!measurement.ok()) return measurement.status();
    if (absl::Status applied = git.Apply(hash, MarkOf(*measurement, options.first_good)); !applied.ok()) return applied;
  }
}

// One bisection by git from `old_hash` to `new_hash`. Returns the commit to search again up to, empty where this is the end.
absl::StatusOr<std::string> SearchOnce(const GitMirror& mirror, CommitMeasurer& measurer, const BisectOptions& options, Walk& walk,
                                       const std::string& old_hash, const std::string& new_hash, Bisection& result) {
  const RemovedAtEnd clone{options.work_directory + "/bisect"};
  absl::StatusOr<std::unique_ptr<GitBisection>> git = GitBisection::Start(
      mirror, clone.directory, options.first_good ? "unfixed" : "good", options.first_good ? "fixed" : "bad", old_hash,
      new_hash, options.cancelled);
  if (!git.ok()) return git.status();
  while ((*git)->state().kind == BisectionState::Kind::kTest) {
    const std::string hash = (*git)->state().commit;
    std::vector<std::string> next;
    for (const Mark mark : {Mark::kNew, Mark::kOld}) {
      std::string expected = (*git)->Foresee(hash, mark);
      if (!expected.empty() && expected != new_hash && expected != hash) next.push_back(std::move(expected));
    }
    measurer.Expect(next);
    absl::StatusOr<Measurement> measurement = walk.Measure(hash, (*git)->Remaining());
    if (!measurement.ok()) return measurement.status();
    if (absl::Status applied = (*git)->Apply(hash, MarkOf(*measurement, options.first_good)); !applied.ok()) return applied;
  }
  measurer.Expect({});
  const BisectionState end = (*git)->state();
  std::vector<std::string> found = {end.commit};
  if (end.kind == BisectionState::Kind::kOnlySkipped) {
    result.end = Bisection::End::kOnlySkipped;
    absl::StatusOr<std::vector<std::string>> order = mirror.HistoryOrder(end.candidates);
    if (!order.ok()) return order.status();
    found = *std::move(order);
    for (const std::string& hash : found) {
      absl::StatusOr<Commit> commit = mirror.Describe(hash);
      if (!commit.ok()) return commit.status();
      result.candidates.push_back(*std::move(commit));
      // All but the newest are those that were skipped.
      absl::StatusOr<Measurement> measurement = walk.Measure(hash, 0);
      if (!measurement.ok()) return measurement.status();
      if (measurement->measured() && !result.after.has_value()) result.after = *std::move(measurement);
    }
  } else {
    result.end = end.kind == BisectionState::Kind::kFound ? Bisection::End::kFound : Bisection::End::kMergeBaseDiffers;
    absl::StatusOr<Measurement> first = walk.Measure(end.commit, 0);
    if (!first.ok()) return first.status();
    result.first = *std::move(first);
  }
  if (result.end != Bisection::End::kMergeBaseDiffers) {
    absl::StatusOr<std::string> earlier = LookBefore(mirror, options, walk, found, result);
    if (!earlier.ok() || !earlier->empty()) return earlier;
    if (absl::Status made = MakeReplayable(options, walk, **git); !made.ok()) return made;
  }
  absl::StatusOr<std::string> log = (*git)->Log();
  if (!log.ok()) return log.status();
  result.log = *std::move(log);
  return std::string();
}

}  // namespace

const char* JudgementName(Judgement judgement) {
  switch (judgement) {
    case Judgement::kGood: return "good";
    case Judgement::kBad: return "bad";
    case Judgement::kSkipped: return "skipped";
  }
  return "";
}

void FillValue(Metric metric, Measurement* measurement) {
  std::vector<double> values;
  for (const RunResult& run : measurement->outcome.runs) values.push_back(MetricValue(metric, run));
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  measurement->value = values.size() % 2 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
  measurement->low = values.front();
  measurement->high = values.back();
}

absl::StatusOr<Bisection> BisectHistory(const GitMirror& mirror, CommitMeasurer& measurer,
                                        const BisectOptions& options) {
  absl::StatusOr<std::string> good_hash = mirror.Resolve(options.good);
  if (!good_hash.ok()) return good_hash.status();
  absl::StatusOr<std::string> bad_hash = mirror.Resolve(options.bad);
  if (!bad_hash.ok()) return bad_hash.status();
  const std::string& old_hash = options.first_good ? *bad_hash : *good_hash;
  const std::string& new_hash = options.first_good ? *good_hash : *bad_hash;
  if (old_hash == new_hash) {
    return absl::InvalidArgumentError(absl::StrCat(options.good, " and ", options.bad, " are the same commit"));
  }
  absl::StatusOr<bool> reversed = mirror.IsAncestor(new_hash, old_hash);
  if (!reversed.ok()) return reversed.status();
  if (*reversed) {
    return absl::InvalidArgumentError(
        options.first_good ? absl::StrCat(options.good, " (good) comes before ", options.bad, " (bad); leave out --first-good")
                           : absl::StrCat(options.bad, " (bad) comes before ", options.good,
                                          " (good); add --first-good to find the commit that mended it"));
  }

  Walk walk(mirror, measurer, options);
  Bisection result;
  absl::StatusOr<std::uint64_t> distance = mirror.Distance(old_hash, new_hash);
  if (!distance.ok()) return distance.status();
  // The ends are both needed, so the second is built while the first is replayed.
  measurer.Expect({*bad_hash});
  absl::StatusOr<Measurement> good = walk.Measure(*good_hash, *distance);
  if (!good.ok()) return good.status();
  if (good->measured()) {
    result.limit = options.threshold.Limit(good->value);
    walk.SetLimit(result.limit);
  }
  absl::StatusOr<Measurement> bad = walk.Measure(*bad_hash, *distance);
  if (!bad.ok()) return bad.status();
  walk.SetEnds(*good, *bad);
  result.good = *good;
  result.bad = *bad;
  if (good->measured()) result.good.judgement = Judgement::kGood;
  const bool differ = good->measured() && bad->measured() && bad->judgement == Judgement::kBad;
  if (!differ) {
    result.end = good->measured() && bad->measured() ? Bisection::End::kNoDifference : Bisection::End::kEndNotMeasured;
    if (absl::Status finished = walk.Finish(&result); !finished.ok()) return finished;
    return result;
  }

  for (std::string end = new_hash;;) {
    absl::StatusOr<std::string> earlier = SearchOnce(mirror, measurer, options, walk, old_hash, end, result);
    if (!earlier.ok()) return earlier.status();
    if (earlier->empty()) break;
    end = *std::move(earlier);
  }
  if (absl::Status finished = walk.Finish(&result); !finished.ok()) return finished;
  return result;
}

absl::StatusOr<std::vector<Measurement>> SweepHistory(const std::vector<Commit>& commits, Metric metric,
                                                      CommitMeasurer& measurer, const BisectOptions& hooks) {
  std::vector<Measurement> measurements;
  for (std::size_t i = 0; i < commits.size(); ++i) {
    if (hooks.cancelled != nullptr && *hooks.cancelled) return absl::CancelledError("interrupted");
    if (hooks.starting) hooks.starting(commits[i], commits.size() - i);
    measurer.Expect(i + 1 < commits.size() ? std::vector<std::string>{commits[i + 1].hash} : std::vector<std::string>());
    absl::StatusOr<Outcome> outcome = measurer.Measure(commits[i]);
    if (!outcome.ok()) return outcome.status();
    Measurement measurement{.commit = commits[i], .outcome = *std::move(outcome)};
    if (measurement.measured()) FillValue(metric, &measurement);
    measurements.push_back(std::move(measurement));
    if (hooks.measured) hooks.measured(measurements.back());
  }
  return measurements;
}

std::vector<Step> LargestSteps(const Threshold& threshold, const std::vector<Measurement>& measurements) {
  std::vector<Step> steps;
  std::optional<std::size_t> last;
  for (std::size_t i = 0; i < measurements.size(); ++i) {
    if (!measurements[i].measured()) continue;
    if (last.has_value()) {
      const double from = measurements[*last].value, to = measurements[i].value;
      if (std::max(from, to) >= threshold.Limit(std::min(from, to))) steps.push_back({*last, i, to - from});
    }
    last = i;
  }
  std::stable_sort(steps.begin(), steps.end(),
                   [](const Step& a, const Step& b) { return std::fabs(a.change) > std::fabs(b.change); });
  return steps;
}

}  // namespace heaptape
