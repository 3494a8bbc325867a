#include "replayer/commands/history_options.h"

#include <stdlib.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "allocators/build.h"
#include "allocators/catalog.h"
#include "allocators/probe.h"
#include "allocators/process.h"
#include "allocators/specification.h"
#include "allocators/store.h"
#include "replayer/commands/commands.h"
#include "replayer/commands/output.h"
#include "replayer/commands/talk.h"
#include "replayer/export/format.h"
#include "replayer/export/text_table.h"
#include "replayer/fleet.h"
#include "replayer/result_cache.h"
#include "traces/output_file.h"

namespace heaptape::commands {
namespace {

namespace fs = std::filesystem;

// One replay of a time is at the mercy of what else the machine does.
constexpr std::uint32_t kRepeatsOfTime = 3;

// Of a commit's subject, while it is measured.
constexpr std::size_t kSubjectColumns = 60;

// What --family says, taken apart: the family, and tunables that are set for every commit.
struct FamilyChoice {
  Family family;
  std::string tunables;  // ":purge_delay=0", as ResolveAllocators() takes it after a path
};

absl::StatusOr<FamilyChoice> ChooseFamily(const HistoryOptions& options) {
  const std::size_t colon = options.family.find(':');
  FamilyChoice choice;
  const std::string name = options.family.substr(0, colon);
  if (colon != std::string::npos) choice.tunables = options.family.substr(colon);
  if (const Family* known = FindFamily(name)) {
    choice.family = *known;
  } else if (!options.build.empty()) {
    choice.family.name = name.empty() ? "library" : name;
  } else {
    std::vector<std::string> names;
    for (const Family* family : Families()) {
      if (!family->build.empty()) names.push_back(family->name);
    }
    return absl::InvalidArgumentError(absl::StrCat(
        name.empty() ? "--family is missing" : absl::StrCat(name, ": no family of that name"), "; known are ", absl::StrJoin(names, ", "),
        ", and any other project with --build COMMAND --library PATH"));
  }
  if (!options.build.empty() && options.library.empty()) {
    return absl::InvalidArgumentError("--build needs --library: the path of what it builds, from the top of the source");
  }
  if (options.build.empty()) {
    if (absl::Status needs = CheckBuildNeeds(choice.family); !needs.ok()) return needs;
  }
  return choice;
}

BuildFunction Builder(const GitMirror& mirror, const FamilyChoice& choice, const HistoryOptions& options) {
  // Apart from what `heaptape allocators add` obtains: no commit of a bisection is an allocator "here".
  const Store store(DefaultCacheFolder() + "/builds");
  return [&mirror, choice, options, store](const std::string& hash, const std::atomic<bool>* cancelled) -> absl::StatusOr<Built> {
    const absl::StatusOr<Commit> commit = mirror.Describe(hash);
    if (!commit.ok()) return commit.status();
    const Source source{.label = commit->name,
                        .identity = hash,
                        .origin = absl::StrCat("commit ", hash, " of ", options.source),
                        .unpack = [&](const std::string& folder) -> absl::StatusOr<std::string> {
                          const std::string clone = folder + "/source";
                          if (absl::Status cloned = mirror.CloneInto(clone); !cloned.ok()) return cloned;
                          if (absl::Status placed = CheckOut(clone, hash, cancelled); !placed.ok()) return placed;
                          return clone;
                        }};
    Built built;
    const absl::StatusOr<StoredAllocator> stored = Build(
        store, choice.family, source,
        {.commands = options.build, .library = options.library, .options = options.configure, .jobs = options.jobs, .cancelled = cancelled},
        &built.built_before);
    if (!stored.ok() && stored.status().code() == absl::StatusCode::kFailedPrecondition) {
      built.failure = std::string(stored.status().message());
      return built;
    }
    if (!stored.ok()) return stored.status();
    built.allocator = Resolved(*stored, choice.family);
    if (!choice.tunables.empty()) {
      absl::StatusOr<std::vector<ResolvedAllocator>> tuned = ResolveAllocators(stored->library_path + choice.tunables);
      if (!tuned.ok()) return tuned.status();
      built.allocator.environment = tuned->front().environment;
      built.allocator.tunables = tuned->front().tunables;
    }
    return built;
  };
}

}  // namespace

void AddJudgeOptions(CLI::App& command, JudgeOptions& options) {
  static const std::map<std::string, HugePageMode> kHugePages = {
      {"off", HugePageMode::kOff}, {"recorded", HugePageMode::kRecorded}, {"always", HugePageMode::kAlways}};
  static const std::map<std::string, Touch> kTouches = {{"recorded", Touch::kRecorded}, {"full", Touch::kFull}, {"none", Touch::kNone}};
  const auto one_of = [](const auto& names) { return CLI::CheckedTransformer(names).description(""); };
  command.add_option("trace", options.trace, "A recording made by heaptape record")->required()->type_name("TRACE");
  command.add_option("-m,--metric", options.metric, "The figure to judge by: steady-state or peak memory, growth, or CPU time of the replay")
      ->check(CLI::IsMember({"steady", "peak", "growth", "time"}).description(""))->type_name("steady|peak|growth|time")->capture_default_str();
  command.add_option("--seeds", options.seeds, "Replays per allocator, each with other addresses and random keys; their median counts (time: at least 3)")
      ->check(CLI::Range(1u, 1000u).description(""))->type_name("N")->capture_default_str();
  command.add_option("--thp", options.replay.huge_pages, "Transparent huge pages (default: off)")
      ->transform(one_of(kHugePages))->type_name("off|recorded|always");
  command.add_option("--touch", options.replay.touch, "Which pages of large blocks are written to (default: recorded)")
      ->transform(one_of(kTouches))->type_name("recorded|full|none");
  command.add_option("--cpus", options.replay.cpu_count, "CPUs the allocator is told of (default: as recorded)")
      ->check(CLI::Range(1u, 4096u).description(""))->type_name("N");
  command.add_option("--memory-limit", options.replay.memory_limit_bytes, "End a replay whose heap takes more, e.g. 8GiB (default: its share of three quarters of the memory available)")
      ->transform(CLI::AsSizeValue(false).description(""))->type_name("SIZE");
}

void AddHistoryOptions(CLI::App& command, HistoryOptions& options) {
  AddJudgeOptions(command, options.judge);
  command.add_option("--threshold", options.judge.threshold,
                     "From where on a figure is bad: 1.5x or +200MB against the good one (default: 1.5x; growth: +10MB/day)")
      ->type_name("LIMIT");
  command.add_option("--family", options.family, "mimalloc, jemalloc, gperftools, ..., with tunables as in mimalloc:purge_delay=0; or a name for what --build makes")
      ->type_name("NAME");
  command.add_option("--source", options.source, "Git repository of its source: an address or the path of a clone, which is only read")
      ->required()->type_name("URL|PATH");
  command.add_option("--build", options.build, "Shell command that builds a commit, run in its checkout with $JOBS, $PREFIX and $OPTIONS set (default: the family's own)")
      ->type_name("COMMAND");
  command.add_option("--library", options.library, "What --build makes, as a path or pattern from the top of the checkout")->type_name("PATH");
  command.add_option("--configure", options.configure, "Options for the family's own build, e.g. -DMI_SECURE=ON")->type_name("OPTIONS");
  command.add_option("-j,--jobs", options.jobs, "Compilers at a time (default: as many as there are CPUs)")->check(CLI::Range(1, 1024).description(""))->type_name("N");
  command.add_flag("--retry-skipped", options.retry_skipped, "Build and replay anew what could not be measured before");
  command.add_option("-f,--format", options.format, "What is printed")
      ->check(CLI::IsMember({"table", "json", "csv", "markdown"}).description(""))->type_name("table|json|csv|markdown")->capture_default_str();
  command.add_option("-o,--output", options.output, "Write everything that was measured as JSON")->type_name("FILE");
  command.add_option("--chart", options.chart, "Write a chart of the figure over the commits as SVG")->type_name("FILE");
  command.add_option("--issue", options.issue, "Write a report to paste into the project's issue tracker, without private data, as Markdown")->type_name("FILE");
  AddForceOption(command, options.force);
}

absl::StatusOr<WorkFolder> WorkFolder::Make() {
  std::string pattern = (fs::temp_directory_path() / "heaptape-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) return absl::FailedPreconditionError(absl::StrCat(pattern, ": cannot be made; is TMPDIR writable?"));
  return WorkFolder(pattern);
}

WorkFolder::~WorkFolder() {
  std::error_code error;
  if (!path_.empty()) fs::remove_all(path_, error);
}

absl::StatusOr<std::unique_ptr<HistorySession>> HistorySession::Open(const HistoryOptions& options, const std::atomic<bool>& cancelled) {
  std::unique_ptr<HistorySession> session(new HistorySession);
  session->options_ = options;
  session->cancelled_ = &cancelled;
  const absl::StatusOr<Metric> metric = ParseMetric(options.judge.metric);
  if (!metric.ok()) return metric.status();
  session->metric_ = *metric;
  session->threshold_ = DefaultThreshold(*metric);
  if (!options.judge.threshold.empty()) {
    absl::StatusOr<Threshold> threshold = ParseThreshold(*metric, options.judge.threshold);
    if (!threshold.ok()) return threshold.status();
    session->threshold_ = *std::move(threshold);
  }
  const absl::StatusOr<FamilyChoice> choice = ChooseFamily(options);
  if (!choice.ok()) return choice.status();
  session->options_.family = choice->family.name + choice->tunables;
  if (absl::Status free = CheckOutputs({options.output, options.chart, options.issue}, options.force); !free.ok()) return free;
  absl::StatusOr<FleetTrace> trace = DescribeTrace(options.judge.trace, options.judge.replay);
  if (!trace.ok()) return trace.status();
  session->trace_ = std::move(trace->report);

  const std::string cache = DefaultCacheFolder();
  absl::StatusOr<GitMirror> mirror = GitMirror::Open(options.source, cache + "/git", &cancelled);
  if (!mirror.ok()) return mirror.status();
  if (!mirror->warning().empty()) Tell(mirror->warning());
  session->mirror_ = *std::move(mirror);

  ReplayOptions replay = options.judge.replay;
  replay.worker_path = PartPath("heaptape-worker");
  replay.cancelled = &cancelled;
  const bool timed = *metric == Metric::kTime;
  std::vector<std::uint64_t> seeds;
  for (std::uint64_t seed = 0; seed < (timed ? std::max(options.judge.seeds, kRepeatsOfTime) : options.judge.seeds); ++seed) seeds.push_back(seed);
  session->board_ = std::make_unique<ProgressBoard>();
  const auto replay_one = [session = session.get(), replay](const ResolvedAllocator& allocator, std::uint64_t seed) {
    ReplayOptions once = replay;
    once.seed = seed;
    const int bar = session->board_->Add(absl::StrCat(allocator.DisplayName(), seed > 0 ? absl::StrCat(" seed ", seed) : ""),
                                         session->trace_.trace.events, "events");
    once.progress = [session, bar](std::uint64_t done) { session->board_->Update(bar, done); };
    absl::StatusOr<RunResult> run = Replay(session->options_.judge.trace, allocator, once);
    session->board_->Remove(bar);
    return run;
  };
  const auto failed_checks = [&cancelled, family = choice->family](const ResolvedAllocator& allocator) -> absl::StatusOr<std::vector<std::string>> {
    const absl::StatusOr<LibraryFacts> facts = AskLibrary(allocator, FindFamily(family.name), {.conformance = true, .cache_folder = DefaultCacheFolder(), .cancelled = &cancelled});
    if (!facts.ok()) return facts.status();
    std::vector<std::string> failed;
    for (const ConformanceCheck& check : facts->checks) {
      if (check.outcome == ConformanceCheck::Outcome::kFailed) failed.push_back(check.name);
    }
    return failed;
  };
  MeasureOptions measure{.identity = absl::StrCat(ResultKey(session->trace_.trace.digest, {}, replay), "\n", session->options_.family, "\n",
                                                  options.build.empty() ? choice->family.build : options.build, "\n", options.library, "\n",
                                                  options.configure, "\n", timed ? "alone" : "beside builds"),
                         .seeds = std::move(seeds),
                         .build_ahead = !timed,
                         .retry_skipped = options.retry_skipped,
                         .cancelled = &cancelled};
  session->measurer_ = std::make_unique<ReplayMeasurer>(Builder(*session->mirror_, *choice, options), failed_checks, replay_one,
                                                        OutcomeCache(cache + "/commits"), std::move(measure));
  return session;
}

HistorySession::~HistorySession() { measurer_.reset(); }

BisectOptions HistorySession::walk() const {
  return {.metric = metric_,
          .threshold = threshold_,
          .cancelled = cancelled_,
          .starting =
              [](const Commit& commit, std::uint64_t remaining) {
                TellLine(absl::StrCat(commit.name, " ", commit.date, " ", Shortened(commit.subject, kSubjectColumns),
                                      remaining > 0 ? absl::StrCat(" (", remaining, " left)") : ""));
              },
          .measured =
              [metric = metric_](const Measurement& measurement) {
                const bool known = measurement.outcome.replayed_before;
                if (measurement.measured()) {
                  TellLine(absl::StrCat("  ", FormatMetric(metric, measurement.value),
                                        measurement.judgement == Judgement::kSkipped ? "" : absl::StrCat(": ", JudgementName(measurement.judgement)),
                                        known ? " (measured before)" : ""));
                } else {
                  TellLine(absl::StrCat("  skipped: ", measurement.outcome.skip_reason, known ? " (tried before)" : ""));
                }
              }};
}

HistoryReport HistorySession::report() const {
  return {.trace = trace_.trace,
          .family = options_.family,
          .source = options_.source,
          .metric = metric_,
          .threshold = threshold_,
          .command = OwnCommand(),
          .kernel = trace_.kernel,
          .machine = trace_.machine};
}

absl::Status Deliver(const HistoryReport& report, const HistoryOptions& options) {
  using Writer = std::string (*)(const HistoryReport&);
  for (const auto& [path, write] : {std::pair<std::string, Writer>{options.output, HistoryJson}, {options.chart, HistoryChart}, {options.issue, HistoryIssue}}) {
    if (path.empty()) continue;
    if (absl::Status written = WriteOutput(path, write(report), options.force); !written.ok()) return written;
  }
  if (options.format == "json") return Print(HistoryJson(report));
  if (options.format == "csv") return Print(HistoryCsv(report));
  if (options.format == "markdown") return Print(HistoryIssue(report));
  return Print(HistoryTable(report, TerminalForStdout().width));
}

int FailOrInterrupted(const absl::Status& status) {
  if (status.code() != absl::StatusCode::kCancelled) return Fail(status);
  Tell("interrupted; what was built and measured is kept, and the same command goes on from there");
  return kExitFailed;
}

}  // namespace heaptape::commands
