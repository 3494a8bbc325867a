// heaptape replay: traces against allocators, and what came of it as table, JSON, CSV, Markdown, Prometheus.

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "allocators/catalog.h"
#include "allocators/store.h"
#include "replayer/commands/commands.h"
#include "replayer/commands/interrupt.h"
#include "replayer/commands/output.h"
#include "replayer/commands/progress.h"
#include "replayer/commands/talk.h"
#include "replayer/export/csv.h"
#include "replayer/export/format.h"
#include "replayer/export/json.h"
#include "replayer/export/prometheus.h"
#include "replayer/export/table.h"
#include "replayer/fleet.h"
#include "replayer/report/html_report.h"
#include "replayer/result_cache.h"
#include "traces/output_file.h"

namespace heaptape::commands {
namespace {

enum class Format { kTable, kJson, kCsv, kMarkdown, kPrometheus };

const std::map<std::string, Format> kFormats = {{"table", Format::kTable},
                                                {"json", Format::kJson},
                                                {"csv", Format::kCsv},
                                                {"markdown", Format::kMarkdown},
                                                {"prometheus", Format::kPrometheus}};

// Moments at which --why looks.
constexpr std::uint32_t kHeapMaps = 40;

struct ReplayArguments {
  std::vector<std::string> traces;
  std::vector<std::string> allocators, tunables;
  Format format = Format::kTable;
  ViewOptions view;
  FleetOptions fleet;
  std::string output;
  std::string cache_folder = absl::StrCat(DefaultCacheFolder(), "/results");
  std::string report;
  bool no_cache = false;
  bool force = false;
  bool why = false;
};

// One bar per running replay and, where there are several, one for all of them.
class BarObserver : public FleetObserver {
 public:
  // Each job replays its trace `passes` times.
  BarObserver(const std::vector<FleetTrace>& traces, const std::vector<ResolvedAllocator>& allocators, std::uint64_t seeds,
              std::uint64_t passes)
      : traces_(traces), allocators_(allocators), passes_(passes) {
    std::uint64_t events = 0;
    for (const FleetTrace& trace : traces) events += allocators.size() * seeds * passes * trace.report.trace.events;
    if (traces.size() * allocators.size() * seeds > 1) all_ = board_.Add("all", events, "events");
  }

  void Started(const FleetJob& job) override { jobs_[KeyOf(job)].bar = board_.Add(NameOf(job), EventsOf(job), "events"); }
  void Progressed(const FleetJob& job, std::uint64_t events_done) override {
    Job& its = jobs_[KeyOf(job)];
    if (events_done < its.events_of_pass) its.events_of_passes_before += its.events_of_pass;  // the next pass has begun
    its.events_of_pass = events_done;
    Show(its, its.events_of_passes_before + its.events_of_pass);
  }
  void Finished(const FleetJob& job, const RunResult& run, bool from_cache) override {
    Job& its = jobs_[KeyOf(job)];
    Show(its, EventsOf(job));
    board_.Remove(its.bar);
    if (traces_.size() < 2) return;
    board_.Say(absl::StrCat(NameOf(job), ": ",
                            run.error ? absl::StrCat("failed: ", *run.error)
                                      : absl::StrCat(FormatBytes(static_cast<double>(run.steady_rss_bytes)), ", ",
                                                     VerdictName(run.verdict)),
                            from_cache ? " (done before)" : ""));
  }

 private:
  using Key = std::tuple<std::size_t, std::size_t, std::uint64_t>;
  struct Job {
    int bar = -1;
    std::uint64_t events_of_pass = 0, events_of_passes_before = 0, shown = 0;
  };

  static Key KeyOf(const FleetJob& job) { return {job.trace, job.allocator, job.seed}; }
  std::uint64_t EventsOf(const FleetJob& job) const { return passes_ * traces_[job.trace].report.trace.events; }
  // The trace only where there are several, and without its folder: bars are narrow.
  std::string NameOf(const FleetJob& job) const {
    const std::string& path = traces_[job.trace].report.trace.path;
    return absl::StrCat(traces_.size() > 1 ? path.substr(path.rfind('/') + 1) + "  " : "", allocators_[job.allocator].DisplayName(),
                        job.seed > 0 ? absl::StrCat(" seed ", job.seed) : "");
  }
  void Show(Job& job, std::uint64_t done) {
    all_done_ += done - std::min(done, job.shown);
    job.shown = std::max(done, job.shown);
    board_.Update(job.bar, done);
    if (all_ >= 0) board_.Update(all_, all_done_);
  }

  const std::vector<FleetTrace>& traces_;
  const std::vector<ResolvedAllocator>& allocators_;
  const std::uint64_t passes_;
  ProgressBoard board_;
  std::map<Key, Job> jobs_;
  int all_ = -1;
  std::uint64_t all_done_ = 0;
};

absl::StatusOr<std::vector<ResolvedAllocator>> AllAllocators(const std::vector<std::string>& specifications, const ReplayOptions& replay) {
  std::vector<ResolvedAllocator> allocators;
  for (const std::string& specification : specifications) {
    absl::StatusOr<std::vector<ResolvedAllocator>> resolved = ResolveAllocators(specification, {.probe_seconds = replay.hang_timeout_seconds, .cancelled = replay.cancelled});
    if (!resolved.ok()) return resolved.status();
    std::move(resolved->begin(), resolved->end(), std::back_inserter(allocators));
  }
  if (allocators.empty()) return absl::NotFoundError("no allocator is installed here; `heaptape allocators` says how to get one");
  return allocators;
}

// The version is only known for certain when the library has told it; the family is known now.
absl::Status CheckBaseline(const std::string& baseline, const std::vector<ResolvedAllocator>& allocators) {
  std::string names;
  for (const ResolvedAllocator& allocator : allocators) {
    const std::string family = baseline.substr(0, baseline.find_first_of(" @"));
    if (allocator.family.rfind(family, 0) == 0) return absl::OkStatus();
    absl::StrAppend(&names, names.empty() ? "" : ", ", allocator.DisplayName());
  }
  return absl::InvalidArgumentError(absl::StrCat("the baseline \"", baseline, "\" is none of the allocators replayed; name one of them: ", names));
}

absl::StatusOr<std::string> Formatted(const std::vector<ReplayReport>& reports, const ReplayArguments& arguments) {
  switch (arguments.format) {
    case Format::kTable:
      return ToTable(reports, arguments.view, TerminalForStdout());
    case Format::kJson:
      return ToJson(reports, arguments.view);
    case Format::kCsv:
      return ToCsv(reports);
    case Format::kMarkdown:
      return ToMarkdown(reports, arguments.view);
    case Format::kPrometheus:
      return ToPrometheus(reports);
  }
  return absl::InternalError("unknown format; report this error of heaptape");
}

int RunReplay(ReplayArguments arguments) {
  if (arguments.allocators.empty()) arguments.allocators = {"all"};
  FleetOptions& fleet = arguments.fleet;
  fleet.replay.worker_path = PartPath("heaptape-worker");
  fleet.replay.cancelled = &StopOnInterrupt();
  if (arguments.why) fleet.heap_maps = kHeapMaps;
  if (!arguments.no_cache) fleet.cache_folder = arguments.cache_folder;

  absl::StatusOr<std::vector<ResolvedAllocator>> allocators = AllAllocators(arguments.allocators, fleet.replay);
  if (allocators.ok()) allocators = ExpandTunables(*allocators, arguments.tunables);
  if (!allocators.ok()) return Fail(allocators.status());
  std::vector<FleetTrace> traces;
  for (const std::string& path : arguments.traces) {
    absl::StatusOr<FleetTrace> trace = DescribeTrace(path, fleet.replay);
    if (!trace.ok()) return Fail(trace.status());
    trace->report.command = OwnCommand();
    traces.push_back(*std::move(trace));
  }
  // Refused now rather than after an hour of replays.
  if (absl::Status known = CheckBaseline(arguments.view.baseline, *allocators); !known.ok()) return Fail(known);
  if (absl::Status free = CheckOutputs({arguments.output, arguments.report}, arguments.force); !free.ok()) return Fail(free);

  absl::StatusOr<std::vector<ReplayReport>> reports;
  {
    BarObserver observer(traces, *allocators, fleet.seeds, arguments.why ? 2 : 1);
    fleet.observer = &observer;
    reports = ReplayFleet(traces, *allocators, fleet);
  }
  if (!reports.ok()) {
    if (reports.status().code() != absl::StatusCode::kCancelled) return Fail(reports.status());
    Tell(absl::StrCat("interrupted", fleet.cache_folder.empty() ? "" : "; what was done is kept, and the same command goes on from there"));
    return kExitFailed;
  }

  if (!arguments.output.empty()) {
    const absl::StatusOr<std::string> json = ToJson(*reports, arguments.view);
    if (!json.ok()) return Fail(json.status());
    if (absl::Status written = WriteOutput(arguments.output, *json, arguments.force); !written.ok()) return Fail(written);
  }
  if (!arguments.report.empty()) {
    const absl::StatusOr<std::string> html = ToHtml(*reports, arguments.view);
    if (!html.ok()) return Fail(html.status());
    if (absl::Status written = WriteOutput(arguments.report, *html, arguments.force); !written.ok()) return Fail(written);
  }
  const absl::StatusOr<std::string> text = Formatted(*reports, arguments);
  if (!text.ok()) return Fail(text.status());
  if (absl::Status printed = Print(*text); !printed.ok()) return Fail(printed);
  for (const std::string& remark : Remarks(*reports)) Tell(remark);
  for (const ReplayReport& report : *reports) {
    for (const RunResult& run : report.runs) {
      if (!run.error) return kExitDone;
    }
  }
  Tell("every replay failed; see above why each did");
  return kExitFailed;
}

}  // namespace

void AddReplay(CLI::App& program, int& status) {
  auto arguments = std::make_shared<ReplayArguments>();
  CLI::App* command = program.add_subcommand("replay", "Replay recordings against allocators: peak, steady state, growth");
  FleetOptions& fleet = arguments->fleet;
  ReplayOptions& replay = fleet.replay;
  static const std::map<std::string, Engine> kEngines = {
      {"auto", Engine::kAuto}, {"fast", Engine::kFast}, {"lockstep", Engine::kLockstep}};
  static const std::map<std::string, Clock> kClocks = {
      {"virtual", Clock::kVirtual}, {"real", Clock::kReal}, {"paced", Clock::kPaced}};
  static const std::map<std::string, Touch> kTouches = {
      {"recorded", Touch::kRecorded}, {"full", Touch::kFull}, {"none", Touch::kNone}};
  static const std::map<std::string, HugePageMode> kHugePages = {
      {"off", HugePageMode::kOff}, {"recorded", HugePageMode::kRecorded}, {"always", HugePageMode::kAlways}};

  command->add_option("trace", arguments->traces, "Recordings made by heaptape record")->required()->type_name("TRACE");
  command->add_option("-a,--allocator", arguments->allocators,
                      "Allocator to replay against: family[@version][:tunable=value,...], the path of a library, or "
                      "all that are installed; may be given several times (default: all)")
      ->type_name("NAME")->allow_extra_args(false);
  command->add_option("--tunable", arguments->tunables,
                      "Replay each allocator of a family with each of these values; several options make all combinations")
      ->type_name("FAMILY:KEY=VALUE,...")->allow_extra_args(false);
  command->add_option("-f,--format", arguments->format, "What is printed (default: table)")
      ->transform(OneOf(kFormats))->type_name("table|json|csv|markdown|prometheus");
  command->add_option("--report", arguments->report, "Write the HTML report")->type_name("FILE");
  command->add_option("-o,--output", arguments->output, "Write all results as JSON, for heaptape report and compare")
      ->type_name("FILE");
  AddForceOption(*command, arguments->force);
  AddViewOptions(*command, arguments->view);
  command->add_option("--seeds", fleet.seeds, "Replays per allocator, each with other addresses and random keys: gives a band")
      ->check(CLI::Range(1u, 1000u).description(""))->type_name("N")->capture_default_str();
  command->add_option("--seed", replay.seed, "The first seed")->type_name("N")->capture_default_str();
  command->add_flag("--why", arguments->why, "Say where the memory is: fragmentation, free pages, metadata, over time (replays twice)");
  command->add_option("--symbols", replay.symbol_folders,
                      "Folder with programs or libraries of the recording, so that --why can name the functions that hold "
                      "memory (default: $PATH and the system's folders); may be given several times")
      ->check(CLI::ExistingDirectory.description(""))->type_name("FOLDER")->allow_extra_args(false);
  command->add_option("-j,--jobs", fleet.jobs, "Replays at a time (default: as cores and memory allow)")
      ->check(CLI::Range(1u, 1024u).description(""))->type_name("N");
  command->add_option("--engine", replay.engine, "Recorded threads by switching identity or by real threads (default: auto)")
      ->transform(OneOf(kEngines))->type_name("auto|fast|lockstep");
  command->add_option("--clock", replay.clock, "The time allocators see (default: virtual, as recorded)")
      ->transform(OneOf(kClocks))->type_name("virtual|real|paced");
  command->add_option("--touch", replay.touch, "Which pages of large blocks are written to (default: recorded)")
      ->transform(OneOf(kTouches))->type_name("recorded|full|none");
  command->add_option("--thp", replay.huge_pages, "Transparent huge pages (default: off)")
      ->transform(OneOf(kHugePages))->type_name("off|recorded|always");
  command->add_option("--time-scale", replay.time_scale, "Multiply recorded times, e.g. by 0.7 for a program that recording slowed down")
      ->check(CLI::Range(0.001, 1000.0).description(""))->type_name("FACTOR");
  command->add_flag("--vary-addresses", replay.vary_addresses, "Leave addresses to chance; else they are fixed by the seed");
  command->add_flag("--vary-keys", replay.vary_keys, "Leave the allocators' random keys to chance; else they are fixed by the seed");
  command->add_flag("--vary-signals", replay.vary_signals, "Let a signal interrupt the replay every millisecond; else they are blocked");
  command->add_flag("--count-own-memory", replay.count_own_memory, "Let the replay's own memory count in the figures; else it is kept out");
  command->add_option("--cpus", replay.cpu_count, "CPUs the allocator is told of (default: as recorded)")
      ->check(CLI::Range(1u, 4096u).description(""))->type_name("N");
  command->add_option("--memory-limit", replay.memory_limit_bytes, "End a replay whose heap takes more, e.g. 8GiB (default: its share of three quarters of the memory available)")
      ->transform(CLI::AsSizeValue(false).description(""))->type_name("SIZE");
  command->add_option("--hang-timeout", replay.hang_timeout_seconds, "End a replay that makes no progress for so long; a library that does not answer is given up after it too")
      ->check(CLI::PositiveNumber.description(""))->type_name("SECONDS")->capture_default_str();
  command->add_option("--samples", replay.sample_count, "Points of the memory series")
      ->check(CLI::Range(10u, 1'000'000u).description(""))->type_name("N")->capture_default_str();
  command->add_option("--cache", arguments->cache_folder, "Folder of results, so that nothing is replayed twice (default: heaptape/results in $XDG_CACHE_HOME or ~/.cache)")
      ->type_name("FOLDER");
  command->add_flag("--no-cache", arguments->no_cache, "Replay everything anew");
  command->footer(
      "Examples:\n"
      "  heaptape replay guard.tape\n"
      "  heaptape replay guard.tape -a glibc -a mimalloc@2.0.9 -a jemalloc:dirty_decay_ms=0 --baseline glibc\n"
      "  heaptape replay guard.tape --why --report report.html\n"
      "  heaptape replay guards/*.tape --seeds 5 -o results.json --report report.html\n"
      "  heaptape replay guard.tape --format markdown >> comment.md");
  command->callback([arguments, &status] { status = RunReplay(*arguments); });
}

}  // namespace heaptape::commands
