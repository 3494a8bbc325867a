// Git as heaptape uses it: private clones of an allocator's history, and git's own bisection in one.
//
// The user's repository is only ever fetched from. Everything calls the git program; its own rules for
// merges, skipped commits and merge bases hold. Not thread-safe unless said.

#ifndef HEAPTAPE_ALLOCATORS_GIT_H_
#define HEAPTAPE_ALLOCATORS_GIT_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace heaptape {

struct Commit {
  std::string hash;     // full
  std::string date;     // committer's, YYYY-MM-DD
  std::string author;   // name alone
  std::string subject;
  std::string name;     // a tag that points at it, else the hash cut to nine digits
};

// A bare mirror of one source, kept in the cache and brought up to date by fetching. Thread-safe.
class GitMirror {
 public:
  // `source` is a URL or the path of a clone; the mirror lies in `cache_directory`. Fetches; when that
  // fails but a mirror is there already, carries on with it and leaves a sentence in warning().
  static absl::StatusOr<GitMirror> Open(const std::string& source, const std::string& cache_directory,
                                        const std::atomic<bool>* cancelled = nullptr);

  const std::string& path() const { return path_; }
  const std::string& warning() const { return warning_; }

  // The full hash of the commit that a tag, branch or abbreviated hash names. NotFound names the nearest tag.
  absl::StatusOr<std::string> Resolve(const std::string& revision) const;
  absl::StatusOr<Commit> Describe(const std::string& hash) const;
  // Tags whose name matches a pattern ("v2.*"), in version order.
  absl::StatusOr<std::vector<std::string>> Tags(const std::string& pattern) const;
  // Every `interval`-th commit of the first-parent line from `from` (empty: the beginning) to `to`, oldest
  // first, both ends included.
  absl::StatusOr<std::vector<std::string>> Line(const std::string& from, const std::string& to,
                                                std::uint64_t interval) const;
  absl::StatusOr<bool> IsAncestor(const std::string& ancestor, const std::string& descendant) const;
  absl::StatusOr<std::vector<std::string>> Parents(const std::string& hash) const;
  // The given commits in the order of history, ancestors first.
  absl::StatusOr<std::vector<std::string>> HistoryOrder(std::vector<std::string> hashes) const;
  // How many commits `to` has that `from` has not.
  absl::StatusOr<std::uint64_t> Distance(const std::string& from, const std::string& to) const;

  // A clone that borrows the mirror's objects, nothing checked out, in `directory` (made by it).
  absl::Status CloneInto(const std::string& directory) const;

 private:
  std::string path_, warning_;
  const std::atomic<bool>* cancelled_ = nullptr;
};

// Checks `hash` out in a clone, removing whatever a build left there.
absl::Status CheckOut(const std::string& clone, const std::string& hash,
                      const std::atomic<bool>* cancelled = nullptr);

// Environment variables that would turn git, or a build that asks git, to another repository.
const std::vector<std::string>& GitVariables();

enum class Mark { kOld, kNew, kSkip };

// Where a bisection stands.
struct BisectionState {
  enum class Kind {
    kTest,           // `commit` is to be measured next
    kFound,          // `commit` is the first one that is as the new end is
    kOnlySkipped,    // it is one of `candidates`, all but one of which could not be measured
    kMergeBaseIsNew, // `commit`, where the two ends' lines part, is already as the new end is
  };
  Kind kind = Kind::kTest;
  std::string commit;
  std::vector<std::string> candidates;
};

// `git bisect` in a clone of its own, which lives as long as this object.
class GitBisection {
 public:
  // `old_term` and `new_term` are the words of git's log: "good" and "bad", or others.
  static absl::StatusOr<std::unique_ptr<GitBisection>> Start(const GitMirror& mirror, const std::string& directory,
                                                             const std::string& old_term, const std::string& new_term,
                                                             const std::string& old_hash, const std::string& new_hash,
                                                             const std::atomic<bool>* cancelled = nullptr);

  const BisectionState& state() const { return state_; }
  absl::Status Apply(const std::string& hash, Mark mark);
  // What `git bisect` would ask for next if `hash` were marked so; empty where nothing is left. A guess
  // where commits were skipped.
  std::string Foresee(const std::string& hash, Mark mark) const;
  // Commits still in question.
  std::uint64_t Remaining() const;
  // Begins anew by git's own log, as whoever is given it does. Git checks then where the lines of all that is marked part, which
  // it had done for the two ends only: state() may be kTest again.
  absl::Status Replay();
  // As `git bisect replay` takes it.
  absl::StatusOr<std::string> Log() const;

 private:
  GitBisection() = default;
  absl::Status Run(const std::vector<std::string>& arguments);
  // The ends of what is in question, as arguments of rev-list.
  std::vector<std::string> Range() const;

  std::string clone_, old_term_, new_term_;
  const std::atomic<bool>* cancelled_ = nullptr;
  BisectionState state_;
};

}  // namespace heaptape

#endif  // HEAPTAPE_ALLOCATORS_GIT_H_
