#include "allocators/git.h"

#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <unordered_map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "allocators/process.h"
#include "allocators/specification.h"
#include "allocators/store.h"

namespace heaptape {
namespace {

std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) {
    if (!line.empty()) lines.push_back(line);
  }
  return lines;
}

// What a failing git said last, for a message of one line.
std::string LastLine(const ProcessResult& result) {
  const std::vector<std::string> lines = Lines(result.errors.empty() ? result.output : result.errors);
  return lines.empty() ? absl::StrCat("status ", result.exit_status) : lines.back();
}

// Runs git on `directory` whatever the caller's own repository, language and hooks are.
absl::StatusOr<ProcessResult> RunGit(const std::string& directory, const std::vector<std::string>& arguments,
                                     const std::atomic<bool>* cancelled) {
  std::vector<std::string> command = {"git",
                                      "-c", "core.hooksPath=/dev/null",
                                      "-c", "advice.detachedHead=false",
                                      "-c", "gc.auto=0",
                                      "-C", directory};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return RunProcess(command, {.environment = {{"LC_ALL", "C"}, {"GIT_TERMINAL_PROMPT", "0"}},
                              .without = GitVariables(),
                              .cancelled = cancelled});
}

// As RunGit(), but any exit status except 0 is an error; returns stdout.
absl::StatusOr<std::string> Git(const std::string& directory, const std::vector<std::string>& arguments,
                                const std::atomic<bool>* cancelled) {
  absl::StatusOr<ProcessResult> result = RunGit(directory, arguments, cancelled);
  if (!result.ok()) return result.status();
  if (result->exit_status != 0) {
    return absl::FailedPreconditionError(absl::StrCat("git ", arguments[0], ": ", LastLine(*result)));
  }
  return std::move(result->output);
}

std::string Trimmed(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

}  // namespace

const std::vector<std::string>& GitVariables() {
  static const auto& names = *new std::vector<std::string>{
      "GIT_DIR",         "GIT_WORK_TREE",  "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR",
      "GIT_PREFIX",      "GIT_NAMESPACE",  "GIT_CEILING_DIRECTORIES", "GIT_ALTERNATE_OBJECT_DIRECTORIES"};
  return names;
}

absl::StatusOr<GitMirror> GitMirror::Open(const std::string& source, const std::string& cache_directory,
                                          const std::atomic<bool>* cancelled) {
  namespace fs = std::filesystem;
  std::error_code error;
  const bool local = fs::exists(source, error);
  const std::string origin = local ? fs::canonical(source, error).string() : source;
  std::string name = fs::path(origin).filename().string();
  if (name.size() > 4 && name.substr(name.size() - 4) == ".git") name.resize(name.size() - 4);
  GitMirror mirror;
  mirror.cancelled_ = cancelled;
  mirror.path_ = absl::StrCat(cache_directory, "/", name, "-",
                              absl::StrFormat("%016x", XXH3_64bits(origin.data(), origin.size())), ".git");
  fs::create_directories(cache_directory, error);
  if (error) return absl::FailedPreconditionError(absl::StrCat(cache_directory, ": cannot be made: ", error.message()));

  const absl::StatusOr<FileLock> lock = FileLock::Take(
      mirror.path_ + ".lock", absl::StrCat("another heaptape is fetching ", source, "; waiting for it"), nullptr, cancelled);
  if (!lock.ok()) return lock.status();
  const bool existed = fs::exists(mirror.path_ + "/HEAD", error);
  if (!existed) {
    absl::StatusOr<std::string> made = Git(cache_directory, {"init", "-q", "--bare", mirror.path_}, cancelled);
    if (!made.ok()) return made.status();
  }
  const auto fetch = [&] {
    return RunGit(mirror.path_, {"fetch", "-q", "--prune", "--update-shallow", "--no-write-fetch-head", "--", origin, "+refs/*:refs/*"}, cancelled);
  };
  absl::StatusOr<ProcessResult> fetched = fetch();
  if (!fetched.ok()) return fetched.status();
  if (fetched->exit_status != 0 && local) {
    // A clone that lacks some objects (a partial one, a damaged one) gives nothing away as a whole, but what a commit needs of
    // it may be there: its objects are read where they lie.
    absl::StatusOr<std::string> objects = Git(origin, {"rev-parse", "--path-format=absolute", "--git-path", "objects"}, cancelled);
    if (objects.ok()) {
      std::ofstream(mirror.path_ + "/objects/info/alternates") << *objects;
      absl::StatusOr<ProcessResult> borrowed = fetch();
      if (!borrowed.ok()) return borrowed.status();
      if (borrowed->exit_status == 0) {
        mirror.warning_ = absl::StrCat(source, ": is not whole (", LastLine(*fetched), "); what it has is read where it lies");
        fetched = std::move(borrowed);
      }
    }
  }
  if (fetched->exit_status != 0) {
    if (!existed) {
      fs::remove_all(mirror.path_, error);
      return absl::NotFoundError(absl::StrCat(source, ": no git repository could be fetched from it (", LastLine(*fetched),
                                              "); give the path of a clone where the network is not there"));
    }
    mirror.warning_ = absl::StrCat(source, ": not fetched (", LastLine(*fetched), "); what was fetched before is used");
    return mirror;
  }
  // So that a user's "HEAD~3" means the source's.
  absl::StatusOr<std::string> head = Git(mirror.path_, {"ls-remote", "--", origin, "HEAD"}, cancelled);
  if (head.ok() && head->size() > 40) {
    const std::string hash = head->substr(0, head->find('\t'));
    // A detached HEAD may be on no branch.
    if (!Git(mirror.path_, {"cat-file", "-e", hash + "^{commit}"}, cancelled).ok()) {
      (void)Git(mirror.path_, {"fetch", "-q", "--no-write-fetch-head", "--", origin, "HEAD"}, cancelled);
    }
    (void)Git(mirror.path_, {"update-ref", "--no-deref", "HEAD", hash}, cancelled);
  }
  return mirror;
}

absl::StatusOr<std::string> GitMirror::Resolve(const std::string& revision) const {
  if (!revision.empty() && revision[0] != '-') {
    absl::StatusOr<ProcessResult> found =
        RunGit(path_, {"rev-parse", "--quiet", "--verify", revision + "^{commit}"}, cancelled_);
    if (!found.ok()) return found.status();
    if (found->exit_status == 0) return Trimmed(found->output);
    // A branch that the source itself only follows.
    found = RunGit(path_, {"rev-parse", "--quiet", "--verify", "refs/remotes/origin/" + revision + "^{commit}"}, cancelled_);
    if (!found.ok()) return found.status();
    if (found->exit_status == 0) return Trimmed(found->output);
  }
  absl::StatusOr<std::vector<std::string>> tags = Tags("*");
  const std::string nearest = tags.ok() ? NearestName(revision, *tags) : "";
  return absl::NotFoundError(absl::StrCat(revision, ": no such tag, branch or commit in the source",
                                          nearest.empty() ? "" : absl::StrCat("; the nearest tag is ", nearest)));
}

absl::StatusOr<Commit> GitMirror::Describe(const std::string& hash) const {
  absl::StatusOr<std::string> text =
      Git(path_, {"show", "-s", "--date=format:%Y-%m-%d", "--format=%H%n%cd%n%an%n%s", hash, "--"}, cancelled_);
  if (!text.ok()) return text.status();
  std::istringstream lines(*text);
  Commit commit;
  std::getline(lines, commit.hash);
  std::getline(lines, commit.date);
  std::getline(lines, commit.author);
  std::getline(lines, commit.subject);
  commit.name = commit.hash.substr(0, 9);
  absl::StatusOr<std::string> tags =
      Git(path_, {"tag", "--points-at", hash, "--sort=v:refname"}, cancelled_);
  if (tags.ok() && !tags->empty()) commit.name = Lines(*tags).front();
  return commit;
}

absl::StatusOr<std::vector<std::string>> GitMirror::Tags(const std::string& pattern) const {
  absl::StatusOr<std::string> text = Git(path_, {"tag", "--list", "--sort=v:refname", pattern}, cancelled_);
  if (!text.ok()) return text.status();
  return Lines(*text);
}

absl::StatusOr<std::vector<std::string>> GitMirror::Line(const std::string& from, const std::string& to,
                                                         std::uint64_t interval) const {
  std::vector<std::string> arguments = {"rev-list", "--first-parent", "--reverse", to};
  if (!from.empty()) arguments.push_back("^" + from);
  absl::StatusOr<std::string> text = Git(path_, arguments, cancelled_);
  if (!text.ok()) return text.status();
  std::vector<std::string> all = Lines(*text);
  if (!from.empty()) all.insert(all.begin(), from);
  std::vector<std::string> chosen;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (i % interval == 0 || i + 1 == all.size()) chosen.push_back(all[i]);
  }
  return chosen;
}

absl::StatusOr<bool> GitMirror::IsAncestor(const std::string& ancestor, const std::string& descendant) const {
  absl::StatusOr<ProcessResult> result =
      RunGit(path_, {"merge-base", "--is-ancestor", ancestor, descendant}, cancelled_);
  if (!result.ok()) return result.status();
  if (result->exit_status > 1) return absl::FailedPreconditionError("git merge-base: " + LastLine(*result));
  return result->exit_status == 0;
}

absl::StatusOr<std::vector<std::string>> GitMirror::Parents(const std::string& hash) const {
  absl::StatusOr<std::string> text = Git(path_, {"show", "-s", "--format=%P", hash, "--"}, cancelled_);
  if (!text.ok()) return text.status();
  std::istringstream words(*text);
  return std::vector<std::string>{std::istream_iterator<std::string>(words), {}};
}

absl::StatusOr<std::vector<std::string>> GitMirror::HistoryOrder(std::vector<std::string> hashes) const {
  if (hashes.empty()) return hashes;
  std::vector<std::string> arguments = {"rev-list", "--topo-order", "--reverse"};
  arguments.insert(arguments.end(), hashes.begin(), hashes.end());
  absl::StatusOr<std::string> text = Git(path_, arguments, cancelled_);
  if (!text.ok()) return text.status();
  std::unordered_map<std::string, std::size_t> place;
  for (const std::string& line : Lines(*text)) place.emplace(line, place.size());
  std::stable_sort(hashes.begin(), hashes.end(),
                   [&](const std::string& a, const std::string& b) { return place[a] < place[b]; });
  return hashes;
}

absl::StatusOr<std::uint64_t> GitMirror::Distance(const std::string& from, const std::string& to) const {
  absl::StatusOr<std::string> text = Git(path_, {"rev-list", "--count", to, "^" + from}, cancelled_);
  if (!text.ok()) return text.status();
  return std::stoull(*text);
}

absl::Status GitMirror::CloneInto(const std::string& directory) const {
  return Git("/", {"clone", "-q", "--shared", "--no-checkout", "--", path_, directory}, cancelled_).status();
}

absl::Status CheckOut(const std::string& clone, const std::string& hash, const std::atomic<bool>* cancelled) {
  absl::StatusOr<std::string> done = Git(clone, {"checkout", "-q", "--force", "--detach", hash}, cancelled);
  if (!done.ok()) return done.status();
  return Git(clone, {"clean", "-q", "-ffdx"}, cancelled).status();
}

absl::StatusOr<std::unique_ptr<GitBisection>> GitBisection::Start(const GitMirror& mirror, const std::string& directory,
                                                                  const std::string& old_term,
                                                                  const std::string& new_term,
                                                                  const std::string& old_hash,
                                                                  const std::string& new_hash,
                                                                  const std::atomic<bool>* cancelled) {
  if (absl::Status cloned = mirror.CloneInto(directory); !cloned.ok()) return cloned;
  std::unique_ptr<GitBisection> bisection(new GitBisection);
  bisection->clone_ = directory;
  bisection->old_term_ = old_term;
  bisection->new_term_ = new_term;
  bisection->cancelled_ = cancelled;
  // `bisect start` wants a branch or commit to come back to.
  if (absl::Status placed = CheckOut(directory, new_hash, cancelled); !placed.ok()) return placed;
  std::vector<std::string> arguments = {"bisect", "start"};
  if (old_term != "good" || new_term != "bad") {
    arguments.insert(arguments.end(), {"--term-old=" + old_term, "--term-new=" + new_term});
  }
  if (absl::Status started = bisection->Run(arguments); !started.ok()) return started;
  // Each end by a line of its own: `git bisect replay` stops after a `start` with ends that wants a merge base tested.
  if (absl::Status ended = bisection->Apply(new_hash, Mark::kNew); !ended.ok()) return ended;
  if (absl::Status ended = bisection->Apply(old_hash, Mark::kOld); !ended.ok()) return ended;
  return bisection;
}

absl::Status GitBisection::Apply(const std::string& hash, Mark mark) {
  return Run({"bisect", mark == Mark::kSkip ? "skip" : mark == Mark::kOld ? old_term_ : new_term_, hash});
}

absl::Status GitBisection::Run(const std::vector<std::string>& arguments) {
  absl::StatusOr<ProcessResult> result = RunGit(clone_, arguments, cancelled_);
  if (!result.ok()) return result.status();
  absl::StatusOr<std::string> log = Log();
  if (!log.ok()) return log.status();
  state_ = BisectionState();
  // The end is read from git's own log, which is meant to be read back, not from what it says to people.
  const std::string found = absl::StrCat("# first ", new_term_, " commit: [");
  const std::string possible = absl::StrCat("# possible first ", new_term_, " commit: [");
  for (const std::string& line : Lines(*log)) {
    for (const std::string& start : {found, possible}) {
      if (line.compare(0, start.size(), start) != 0) continue;
      const std::string hash = line.substr(start.size(), line.find(']') - start.size());
      state_.kind = start == found ? BisectionState::Kind::kFound : BisectionState::Kind::kOnlySkipped;
      if (start == found) state_.commit = hash;
      if (start == possible) state_.candidates.push_back(hash);
    }
  }
  if (state_.kind != BisectionState::Kind::kTest) return absl::OkStatus();
  // The documented status for "a merge base is already new".
  constexpr int kMergeBaseStatus = 3;
  if (result->exit_status == kMergeBaseStatus) {
    absl::StatusOr<std::string> base = Git(clone_, {"rev-parse", absl::StrCat("refs/bisect/", new_term_)}, cancelled_);
    if (!base.ok()) return base.status();
    state_.kind = BisectionState::Kind::kMergeBaseIsNew;
    state_.commit = Trimmed(*base);
    return absl::OkStatus();
  }
  if (result->exit_status != 0) {
    return absl::FailedPreconditionError(absl::StrCat("git bisect: ", LastLine(*result)));
  }
  absl::StatusOr<std::string> head = Git(clone_, {"rev-parse", "HEAD"}, cancelled_);
  if (!head.ok()) return head.status();
  state_.commit = Trimmed(*head);
  return absl::OkStatus();
}

absl::Status GitBisection::Replay() {
  absl::StatusOr<std::string> log = Log();
  if (!log.ok()) return log.status();
  const std::string file = clone_ + "/.git/heaptape-log";
  std::ofstream written(file);
  written << *log;
  written.close();
  if (!written) return absl::ResourceExhaustedError(absl::StrCat(file, ": cannot be written: ", std::strerror(errno)));
  return Run({"bisect", "replay", file});
}

absl::StatusOr<std::string> GitBisection::Log() const { return Git(clone_, {"bisect", "log"}, cancelled_); }

std::vector<std::string> GitBisection::Range() const {
  std::vector<std::string> range;
  absl::StatusOr<std::string> refs =
      Git(clone_, {"for-each-ref", "--format=%(refname)", "refs/bisect"}, cancelled_);
  if (!refs.ok()) return range;
  for (const std::string& ref : Lines(*refs)) {
    if (ref == "refs/bisect/" + new_term_) range.push_back(ref);
    if (ref.find("refs/bisect/" + old_term_ + "-") == 0) range.push_back("^" + ref);
  }
  return range;
}

std::string GitBisection::Foresee(const std::string& hash, Mark mark) const {
  std::vector<std::string> arguments = {"rev-list", "--bisect"};
  for (const std::string& end : Range()) {
    if (mark != Mark::kNew || end[0] == '^') arguments.push_back(end);
  }
  arguments.push_back(mark == Mark::kNew ? hash : "^" + hash);
  absl::StatusOr<std::string> next = Git(clone_, arguments, cancelled_);
  return next.ok() ? Trimmed(*next) : "";
}

std::uint64_t GitBisection::Remaining() const {
  std::vector<std::string> arguments = {"rev-list", "--count"};
  for (const std::string& end : Range()) arguments.push_back(end);
  absl::StatusOr<std::string> count = Git(clone_, arguments, cancelled_);
  return count.ok() ? std::strtoull(count->c_str(), nullptr, 10) : 0;
}

}  // namespace heaptape
