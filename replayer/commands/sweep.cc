// heaptape sweep: what a recording needs over an allocator's history.

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "replayer/commands/commands.h"
#include "replayer/commands/history_options.h"
#include "replayer/commands/interrupt.h"
#include "replayer/commands/talk.h"

namespace heaptape::commands {
namespace {

struct SweepArguments {
  HistoryOptions history;
  std::vector<std::string> revisions;
  std::vector<std::string> tags;
  std::string from, to = "HEAD";
  std::uint64_t every = 0;
};

// As given; then tags in the order of their versions; then every so many-th commit from old to new. Each once.
absl::StatusOr<std::vector<Commit>> Chosen(const GitMirror& mirror, const SweepArguments& arguments) {
  std::vector<std::string> hashes;
  for (const std::string& revision : arguments.revisions) {
    absl::StatusOr<std::string> hash = mirror.Resolve(revision);
    if (!hash.ok()) return hash.status();
    hashes.push_back(*std::move(hash));
  }
  for (const std::string& pattern : arguments.tags) {
    absl::StatusOr<std::vector<std::string>> tags = mirror.Tags(pattern);
    if (!tags.ok()) return tags.status();
    if (tags->empty()) return absl::NotFoundError(absl::StrCat(pattern, ": no tag of the source matches; see git tag for those there are"));
    for (const std::string& tag : *tags) {
      absl::StatusOr<std::string> hash = mirror.Resolve("refs/tags/" + tag);
      if (!hash.ok()) return hash.status();
      hashes.push_back(*std::move(hash));
    }
  }
  if (arguments.every > 0) {
    absl::StatusOr<std::string> to = mirror.Resolve(arguments.to);
    if (!to.ok()) return to.status();
    std::string from;
    if (!arguments.from.empty()) {
      absl::StatusOr<std::string> hash = mirror.Resolve(arguments.from);
      if (!hash.ok()) return hash.status();
      from = *std::move(hash);
    }
    absl::StatusOr<std::vector<std::string>> line = mirror.Line(from, *to, arguments.every);
    if (!line.ok()) return line.status();
    hashes.insert(hashes.end(), line->begin(), line->end());
  }
  if (hashes.empty()) return absl::InvalidArgumentError("nothing to measure; name revisions, or use --tags PATTERN or --every N");
  std::vector<Commit> commits;
  for (const std::string& hash : hashes) {
    const auto same = [&](const Commit& commit) { return commit.hash == hash; };
    if (std::any_of(commits.begin(), commits.end(), same)) continue;
    absl::StatusOr<Commit> commit = mirror.Describe(hash);
    if (!commit.ok()) return commit.status();
    commits.push_back(*std::move(commit));
  }
  return commits;
}

int RunSweep(const SweepArguments& arguments) {
  const std::atomic<bool>& cancelled = StopOnInterrupt();
  absl::StatusOr<std::unique_ptr<HistorySession>> session = HistorySession::Open(arguments.history, cancelled);
  if (!session.ok()) return FailOrInterrupted(session.status());
  absl::StatusOr<std::vector<Commit>> commits = Chosen((*session)->mirror(), arguments);
  if (!commits.ok()) return FailOrInterrupted(commits.status());
  const BisectOptions walk = (*session)->walk();
  absl::StatusOr<std::vector<Measurement>> measured = SweepHistory(*commits, walk.metric, (*session)->measurer(), walk);
  if (!measured.ok()) return FailOrInterrupted(measured.status());
  HistoryReport report = (*session)->report();
  report.sweep = *std::move(measured);
  if (absl::Status delivered = Deliver(report, arguments.history); !delivered.ok()) return Fail(delivered);
  for (const Measurement& measurement : report.sweep) {
    if (measurement.measured()) return kExitDone;
  }
  Tell("no commit could be measured; see above why each was skipped");
  return kExitFailed;
}

}  // namespace

void AddSweep(CLI::App& program, int& status) {
  auto arguments = std::make_shared<SweepArguments>();
  CLI::App* command = program.add_subcommand("sweep", "Measure a recording over an allocator's history");
  AddHistoryOptions(*command, arguments->history);
  command->add_option("revision", arguments->revisions, "Tags, branches or commits, shown in this order")->type_name("REVISION");
  command->add_option("--tags", arguments->tags, "Every tag that matches a pattern, in the order of versions")->type_name("PATTERN")->allow_extra_args(false);
  command->add_option("--every", arguments->every, "Every N-th commit of the main line")->check(CLI::Range(1, 1'000'000).description(""))->type_name("N");
  command->add_option("--from", arguments->from, "With --every: the commit to begin at (default: the first)")->type_name("REVISION");
  command->add_option("--to", arguments->to, "With --every: the commit to end at")->type_name("REVISION")->capture_default_str();
  command->footer(
      "Steps of the threshold and more between neighbours are marked, and the largest is given as ends for\n"
      "heaptape bisect. Builds and figures are kept and shared with it.\n\n"
      "Examples:\n"
      "  heaptape sweep guard.tape --family mimalloc --source ~/src/mimalloc v2.0.9 v2.1.2 v2.1.7 v3.0.1 v3.1.5\n"
      "  heaptape sweep guard.tape --family mimalloc --source ~/src/mimalloc --tags 'v2.*' --metric peak --chart peak.svg\n"
      "  heaptape sweep guard.tape --family mimalloc --source ~/src/mimalloc --every 50 --from v2.1.7 --to v3.0.1");
  command->callback([arguments, &status] { status = RunSweep(*arguments); });
}

}  // namespace heaptape::commands
