// heaptape lab compare: live relays under each allocator, one more recorded, and what replaying the
// recording would have said of them.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "allocators/store.h"
#include "nlohmann/json.hpp"
#include "replayer/commands/commands.h"
#include "replayer/commands/interrupt.h"
#include "replayer/commands/lab.h"
#include "replayer/commands/output.h"
#include "replayer/commands/talk.h"
#include "replayer/export/external_text.h"
#include "replayer/export/format.h"
#include "replayer/export/text_table.h"
#include "replayer/fleet.h"
#include "replayer/steady_state.h"
#include "traces/output_file.h"

namespace heaptape::commands {
namespace {

using Clock = std::chrono::steady_clock;
using Points = std::vector<MemoryPoint>;

// Relays that differ by less than this need no same order.
constexpr double kClearDifference = 0.10;

struct CompareFlags {
  NetworkFlags network;
  LoadFlags load;
  GuardFlags guard;
  std::vector<std::string> allocators = {"glibc", "jemalloc", "mimalloc", "tcmalloc"};
  int pairs = 2;
  double minutes = 20;
  std::string output = "lab-compare";
  bool replay_only = false;
  bool force = false;
};

struct LiveRelay {
  std::string specification;
  Points anonymous;                 // time since the relay's start
  std::uint64_t peak_bytes = 0;     // of all but file pages
  bool recorded = false;
};

// What is said of one course of memory over time.
struct Judged {
  double mean = 0;                  // over the second half
  double peak = 0, end = 0, growth_per_day = 0;
  Verdict verdict = Verdict::kSettling;
};

Judged Judge(const Points& all, double peak, std::uint64_t duration_ns) {
  Judged judged;
  Points points;
  for (const MemoryPoint& point : all) {
    if (point.time_ns <= duration_ns) points.push_back(point);
  }
  double weighted = 0, weight = 0;
  for (std::size_t i = 1; i < points.size(); ++i) {
    if (points[i].time_ns < duration_ns / 2) continue;
    const auto span = static_cast<double>(points[i].time_ns - points[i - 1].time_ns);
    weighted += span * points[i].bytes;
    weight += span;
  }
  judged.mean = weight > 0 ? weighted / weight : 0;
  judged.peak = peak;
  judged.end = points.empty() ? 0 : points.back().bytes;
  const SteadyState steady = JudgeSteadyState(points);
  judged.growth_per_day = steady.growth_bytes_per_day;
  judged.verdict = steady.verdict;
  return judged;
}

// One allocator: its live relays and its replay.
struct Row {
  std::string name;
  std::vector<Judged> live;
  std::vector<const LiveRelay*> relays;
  std::optional<Judged> replay;
  Points replayed;
  std::string error;

  double LiveMean() const {
    double sum = 0;
    for (const Judged& one : live) sum += one.mean;
    return live.empty() ? 0 : sum / static_cast<double>(live.size());
  }
  // The distance of the live relays farthest apart, as a share of their mean.
  double Spread() const {
    if (live.size() < 2) return 0;
    const auto [low, high] = std::minmax_element(live.begin(), live.end(), [](const Judged& a, const Judged& b) { return a.mean < b.mean; });
    return (high->mean - low->mean) / LiveMean();
  }
  double Error() const { return replay && LiveMean() > 0 ? replay->mean / LiveMean() - 1 : 0; }
};

nlohmann::json ToJson(const std::vector<LiveRelay>& relays, double seconds) {
  nlohmann::json list = nlohmann::json::array();
  for (const LiveRelay& relay : relays) {
    nlohmann::json times = nlohmann::json::array(), bytes = nlohmann::json::array();
    for (const MemoryPoint& point : relay.anonymous) {
      times.push_back(point.time_ns);
      bytes.push_back(static_cast<std::uint64_t>(point.bytes));
    }
    list.push_back({{"allocator", relay.specification}, {"recorded", relay.recorded}, {"peak_bytes", relay.peak_bytes},
                    {"time_ns", times}, {"anonymous_bytes", bytes}});
  }
  return {{"schema_version", 1}, {"duration_ns", static_cast<std::uint64_t>(seconds * 1e9)}, {"relays", list}};
}

absl::StatusOr<std::vector<LiveRelay>> ReadLive(const std::string& path, std::uint64_t& duration_ns) {
  const absl::StatusOr<std::string> text = ReadWhole(path);
  if (!text.ok()) return text.status();
  std::vector<LiveRelay> relays;
  try {
    const nlohmann::json json = nlohmann::json::parse(*text);
    json.at("duration_ns").get_to(duration_ns);
    for (const nlohmann::json& one : json.at("relays")) {
      LiveRelay relay{.specification = one.at("allocator"), .peak_bytes = one.at("peak_bytes"), .recorded = one.at("recorded")};
      const std::vector<std::uint64_t> times = one.at("time_ns"), bytes = one.at("anonymous_bytes");
      if (times.size() != bytes.size()) return absl::DataLossError(absl::StrCat(path, ": damaged; run the comparison anew"));
      for (std::size_t i = 0; i < times.size(); ++i) relay.anonymous.push_back({times[i], static_cast<double>(bytes[i])});
      relays.push_back(std::move(relay));
    }
  } catch (const nlohmann::json::exception&) {
    return absl::DataLossError(absl::StrCat(path, ": not the result of a live comparison; run it anew"));
  }
  return relays;
}

// Runs the live half of the experiment; the recording and live.json are its result.
absl::Status RunLive(const CompareFlags& flags, Teller& teller) {
  std::vector<std::pair<std::string, ResolvedAllocator>> allocators;
  for (const std::string& specification : flags.allocators) {
    const absl::StatusOr<ResolvedAllocator> allocator = OneAllocator(specification);
    if (!allocator.ok()) return allocator.status();
    allocators.emplace_back(specification, *allocator);
  }
  if (static_cast<int>(allocators.size()) * flags.pairs + 1 > lab::kGuardPlaces) {
    return absl::InvalidArgumentError(absl::StrCat("one network has places for ", lab::kGuardPlaces, " relays; compare fewer at a time"));
  }
  const absl::StatusOr<ResolvedAllocator> recorded = OneAllocator(flags.guard.allocator);
  if (!recorded.ok()) return recorded.status();
  const absl::StatusOr<BorrowedNetwork> network = BorrowedNetwork::Get(flags.network.options, teller);
  if (!network.ok()) return network.status();
  const lab::NetworkState& state = network->state();

  std::vector<std::unique_ptr<lab::Guard>> guards;
  std::vector<LiveRelay> relays;
  const auto start_one = [&](const std::string& specification, const ResolvedAllocator& allocator, bool record) -> absl::Status {
    lab::GuardOptions options = flags.guard.options;
    options.place = static_cast<int>(guards.size()) + 1;
    if (record) options.prefix = RecordingPrefix(flags.output + "/guard.tape", flags.guard.time_resolution, flags.force);
    UseAllocator(allocator, options);
    absl::StatusOr<std::unique_ptr<lab::Guard>> guard = lab::Guard::Start(state, options);
    if (!guard.ok()) return guard.status();
    guards.push_back(*std::move(guard));
    relays.push_back({.specification = specification, .recorded = record});
    return absl::OkStatus();
  };
  const auto start = Clock::now();
  if (absl::Status status = start_one(flags.guard.allocator, *recorded, true); !status.ok()) return status;
  for (int copy = 0; copy < flags.pairs; ++copy) {
    for (const auto& [specification, allocator] : allocators) {
      if (absl::Status status = start_one(specification, allocator, false); !status.ok()) return status;
    }
  }

  const auto note_memory = [&] {
    for (std::size_t i = 0; i < guards.size(); ++i) {
      const absl::StatusOr<lab::GuardMemory> memory = guards[i]->ReadMemory();
      if (!memory.ok()) continue;
      const auto time = static_cast<std::uint64_t>(std::chrono::duration<double, std::nano>(Clock::now() - start).count());
      relays[i].anonymous.push_back({time, static_cast<double>(memory->anonymous_bytes)});
      relays[i].peak_bytes = memory->peak_bytes - std::min(memory->peak_bytes, memory->file_bytes);
    }
  };
  absl::StatusOr<LoadedRun> run =
      RunUnderLoad(state, guards, flags.load.options, flags.minutes * 60, teller, std::chrono::seconds(2), note_memory);
  if (!run.ok()) return run.status();
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  teller.End();
  PrintCounts(run->load->counts());
  run->load.reset();
  // Kept before anything else can fail: it cannot be had again.
  if (absl::Status status = WriteOutput(flags.output + "/live.json", JsonText(ToJson(relays, seconds), -1), flags.force); !status.ok()) return status;
  if (absl::Status status = EndRelays(guards, teller); !status.ok()) return status;
  if (!Interrupted()) return absl::OkStatus();
  return absl::CancelledError(absl::StrCat("interrupted; what was measured is kept, judge it with: heaptape lab compare --replay-only --output ", flags.output));
}

std::vector<std::size_t> Ranking(const std::vector<Row>& rows, bool live) {
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < rows.size(); ++i) order.push_back(i);
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    const auto key = [&](std::size_t i) { return live ? rows[i].LiveMean() : rows[i].replay ? rows[i].replay->mean : HUGE_VAL; };
    return key(a) < key(b);
  });
  std::vector<std::size_t> ranks(rows.size());
  for (std::size_t place = 0; place < order.size(); ++place) ranks[order[place]] = place + 1;
  return ranks;
}

std::string MiB(double bytes) { return absl::StrFormat("%.1f", bytes / 1048576); }

// A line chart of several courses, as SVG. Times in minutes, memory in MiB.
std::string Chart(const std::string& title, const std::vector<std::pair<std::string, const Points*>>& courses) {
  static const char* const kColours[] = {"#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22"};
  constexpr double kWidth = 860, kHeight = 360, kLeft = 60, kTop = 30, kRight = 220, kBottom = 40;
  double last = 1, highest = 1;
  for (const auto& [name, points] : courses) {
    for (const MemoryPoint& point : *points) {
      last = std::max(last, static_cast<double>(point.time_ns));
      highest = std::max(highest, point.bytes);
    }
  }
  const auto x = [&](double ns) { return kLeft + ns / last * (kWidth - kLeft - kRight); };
  const auto y = [&](double bytes) { return kHeight - kBottom - bytes / highest * (kHeight - kTop - kBottom); };
  std::string svg = absl::StrFormat("<svg viewBox=\"0 0 %g %g\" width=\"%g\" height=\"%g\" role=\"img\" aria-label=\"%s\">\n", kWidth, kHeight, kWidth, kHeight, HtmlText(title));
  absl::StrAppendFormat(&svg, "<text x=\"%g\" y=\"18\" font-weight=\"bold\">%s</text>\n", kLeft, HtmlText(title));
  for (int i = 0; i <= 5; ++i) {
    const double bytes = highest * i / 5, ns = last * i / 5;
    absl::StrAppendFormat(&svg, "<path d=\"M%.1f %.1fH%.1f\" stroke=\"#ddd\"/><text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%.0f</text>\n", kLeft, y(bytes),
                          kWidth - kRight, kLeft - 6, y(bytes) + 4, bytes / 1048576);
    absl::StrAppendFormat(&svg, "<text x=\"%.1f\" y=\"%g\" text-anchor=\"middle\">%.0f min</text>\n", x(ns), kHeight - 16, ns / 6e10);
  }
  for (std::size_t i = 0; i < courses.size(); ++i) {
    const auto& [name, points] = courses[i];
    const char* colour = kColours[i % std::size(kColours)];
    std::string path;
    double drawn = -1;
    for (const MemoryPoint& point : *points) {
      const double at = x(static_cast<double>(point.time_ns));
      if (at - drawn < 0.7) continue;  // finer than the screen
      absl::StrAppendFormat(&path, "%s%.1f %.1f", path.empty() ? "M" : "L", at, y(point.bytes));
      drawn = at;
    }
    const double legend = kTop + 16.0 * static_cast<double>(i + 1);
    absl::StrAppendFormat(&svg, "<path d=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\"/><path d=\"M%g %gh18\" stroke=\"%s\" stroke-width=\"3\"/><text x=\"%g\" y=\"%g\">%s</text>\n",
                          path, colour, kWidth - kRight + 12, legend - 4, colour, kWidth - kRight + 36, legend, HtmlText(name));
  }
  return svg + "</svg>\n";
}

TextTable ToTable(const std::vector<Row>& rows) {
  TextTable table({{"allocator", false}, {"live mean MiB"}, {"spread"}, {"replay mean MiB"}, {"error"}, {"live rank"}, {"replay rank"}, {"live peak"},
                   {"replay peak"}, {"live end"}, {"replay end"}, {"live growth"}, {"replay growth"}, {"live verdict", false}, {"replay verdict", false}});
  const std::vector<std::size_t> live_ranks = Ranking(rows, true), replay_ranks = Ranking(rows, false);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Row& row = rows[i];
    const auto average = [&](double Judged::*value) {
      double sum = 0;
      for (const Judged& one : row.live) sum += one.*value;
      return sum / static_cast<double>(row.live.size());
    };
    std::string verdicts;
    for (const Judged& one : row.live) {
      if (verdicts.find(VerdictName(one.verdict)) == std::string::npos) absl::StrAppend(&verdicts, verdicts.empty() ? "" : "/", VerdictName(one.verdict));
    }
    const bool known = row.replay.has_value();
    const auto of_replay = [&](const std::string& text) { return Cell{known ? text : "-"}; };
    const Judged replay = row.replay.value_or(Judged());
    table.AddRow({{row.name}, {MiB(row.LiveMean())}, {row.live.size() > 1 ? FormatShare(row.Spread()) : "-"}, of_replay(MiB(replay.mean)),
                  of_replay(FormatShare(row.Error())), {absl::StrCat(live_ranks[i])}, of_replay(absl::StrCat(replay_ranks[i])), {MiB(average(&Judged::peak))},
                  of_replay(MiB(replay.peak)), {MiB(average(&Judged::end))}, of_replay(MiB(replay.end)), {FormatGrowth(average(&Judged::growth_per_day))},
                  of_replay(FormatGrowth(replay.growth_per_day)), {verdicts}, {known ? VerdictName(replay.verdict) : absl::StrCat("failed: ", row.error)}});
  }
  return table;
}

// How many of the pairs that clearly differ live come in the same order in the replay.
std::pair<int, int> SameOrder(const std::vector<Row>& rows) {
  int same = 0, clear = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (std::size_t j = i + 1; j < rows.size(); ++j) {
      if (!rows[i].replay || !rows[j].replay) continue;
      const double a = rows[i].LiveMean(), b = rows[j].LiveMean();
      if (std::abs(a - b) <= kClearDifference * std::min(a, b)) continue;
      ++clear;
      if ((a < b) == (rows[i].replay->mean < rows[j].replay->mean)) ++same;
    }
  }
  return {same, clear};
}

// To judge anew is to replace the judgement.
bool Replaces(const CompareFlags& flags) { return flags.force || flags.replay_only; }

// Refuses what would have to be refused after the relays have run.
absl::Status CheckFiles(const CompareFlags& flags) {
  std::vector<std::string> made;
  for (const char* const name : {"compare.json", "compare.md", "compare.html"}) made.push_back(absl::StrCat(flags.output, "/", name));
  if (absl::Status free = CheckOutputs(made, Replaces(flags)); !free.ok() || flags.replay_only) return free;
  return CheckOutputs({flags.output + "/guard.tape", flags.output + "/live.json"}, flags.force);
}

absl::Status RunReplays(const CompareFlags& flags) {
  std::uint64_t duration_ns = 0;
  const absl::StatusOr<std::vector<LiveRelay>> relays = ReadLive(flags.output + "/live.json", duration_ns);
  if (!relays.ok()) return relays.status();
  std::vector<Row> rows;
  std::vector<ResolvedAllocator> allocators;
  for (const LiveRelay& relay : *relays) {
    // The recorded relay's own row comes first: its replay has nothing to guess but the allocator's state.
    const absl::StatusOr<ResolvedAllocator> allocator = OneAllocator(relay.specification);
    if (!allocator.ok()) return allocator.status();
    const std::string name = absl::StrCat(allocator->DisplayName(), relay.recorded ? " (recorded)" : "");
    auto row = std::find_if(rows.begin(), rows.end(), [&](const Row& other) { return other.name == name; });
    if (row == rows.end()) {
      rows.push_back({.name = name});
      allocators.push_back(*allocator);
      row = rows.end() - 1;
    }
    row->live.push_back(Judge(relay.anonymous, static_cast<double>(relay.peak_bytes), duration_ns));
    row->relays.push_back(&relay);
  }

  const absl::StatusOr<FleetTrace> trace = DescribeTrace(flags.output + "/guard.tape");
  if (!trace.ok()) return trace.status();
  FleetOptions fleet;
  fleet.replay.worker_path = PartPath("heaptape-worker");
  fleet.replay.cancelled = &Interrupted();
  fleet.replay.huge_pages = HugePageMode::kRecorded;  // the live relays run under the machine's setting
  fleet.cache_folder = absl::StrCat(DefaultCacheFolder(), "/results");
  TellLine(absl::StrCat("replaying ", FormatCount(trace->report.trace.events), " events on ", allocators.size(), " allocators"));
  const absl::StatusOr<std::vector<ReplayReport>> reports = ReplayFleet({*trace}, allocators, fleet);
  if (!reports.ok()) return reports.status();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const RunResult& run = reports->front().runs[i];
    for (const ReplaySample& sample : run.series) rows[i].replayed.push_back({sample.time_ns, static_cast<double>(sample.heap_rss_bytes)});
    if (run.error) {
      rows[i].error = *run.error;
    } else {
      // The recording goes on to the relay's end; what was measured live does not.
      double peak = 0;
      for (const MemoryPoint& point : rows[i].replayed) {
        if (point.time_ns <= duration_ns) peak = std::max(peak, point.bytes);
      }
      if (run.peak_time_ns <= duration_ns) peak = static_cast<double>(run.peak_rss_bytes);
      rows[i].replay = Judge(rows[i].replayed, peak, duration_ns);
    }
  }

  const TextTable table = ToTable(rows);
  const auto [same, clear] = SameOrder(rows);
  const std::string order = absl::StrFormat("%d of %d pairs that differ by more than %.0f %% live come in the same order in the replay", same, clear, 100 * kClearDifference);
  const TerminalOptions terminal = TerminalForStdout();
  if (absl::Status status = Print(absl::StrCat(table.Plain(terminal.width, terminal.colour), "\n", order, "\n")); !status.ok()) return status;

  nlohmann::json list = nlohmann::json::array();
  const auto judged_json = [](const Judged& judged) {
    return nlohmann::json{{"mean_bytes", judged.mean}, {"peak_bytes", judged.peak}, {"end_bytes", judged.end},
                          {"growth_bytes_per_day", judged.growth_per_day}, {"verdict", VerdictName(judged.verdict)}};
  };
  std::vector<std::pair<std::string, const Points*>> live_courses, replay_courses;
  for (const Row& row : rows) {
    nlohmann::json live = nlohmann::json::array();
    for (const Judged& one : row.live) live.push_back(judged_json(one));
    nlohmann::json entry = {{"allocator", row.name}, {"live", live}, {"live_mean_bytes", row.LiveMean()}, {"spread", row.Spread()}, {"error", row.Error()}};
    if (row.replay) entry["replay"] = judged_json(*row.replay);
    if (!row.error.empty()) entry["failure"] = row.error;
    list.push_back(entry);
    live_courses.emplace_back(row.name, &row.relays.front()->anonymous);
    replay_courses.emplace_back(row.name, &row.replayed);
  }
  const nlohmann::json json = {{"schema_version", 1}, {"duration_ns", duration_ns}, {"events", trace->report.trace.events}, {"pairs_in_order", same},
                               {"pairs_that_differ", clear}, {"allocators", list}};
  if (absl::Status status = WriteOutput(flags.output + "/compare.json", JsonText(json) + "\n", Replaces(flags)); !status.ok()) return status;
  if (absl::Status status = WriteOutput(flags.output + "/compare.md", absl::StrCat(table.Markdown(), "\n", order, "\n"), Replaces(flags)); !status.ok()) return status;
  const std::string page = absl::StrCat(
      "<!doctype html><meta charset=\"utf-8\"><title>Live relays and their replay</title>\n"
      "<style>body{font:14px sans-serif;margin:2em}svg{font:12px sans-serif;display:block;margin:1em 0}</style>\n"
      "<h1>Live relays and what one recording says of them</h1>\n",
      Chart("Live: anonymous RSS in MiB", live_courses), Chart("Replayed: heap RSS in MiB", replay_courses), "<pre>", HtmlLines(table.Plain(0, false)), "\n", order, "</pre>\n");
  if (absl::Status status = WriteOutput(flags.output + "/compare.html", page, Replaces(flags)); !status.ok()) return status;
  TellLine(absl::StrCat("charts: ", flags.output, "/compare.html"));
  return absl::OkStatus();
}

}  // namespace

void AddLabCompare(CLI::App& lab_command, int& status) {
  auto flags = std::make_shared<CompareFlags>();
  CLI::App* command = lab_command.add_subcommand("compare", "Run live relays under several allocators beside a recorded one, and replay the recording on all");
  flags->network.AddDirectory(*command);
  flags->network.Add(*command);
  flags->load.Add(*command);
  flags->guard.Add(*command);
  command->add_option("-a,--allocator", flags->allocators, "What the live relays run under; may be given several times")->allow_extra_args(false)->capture_default_str();
  command->add_option("--record-under", flags->guard.allocator, "What the recorded relay runs under")->capture_default_str();
  command->add_option("--live", flags->pairs, "Live relays per allocator: their spread says what a difference is worth")->check(CLI::Range(1, 10))->capture_default_str();
  command->add_option("--minutes", flags->minutes, "How long the relays run")->check(CLI::Range(0.1, 100000.0))->capture_default_str();
  command->add_option("--output", flags->output, "Folder for the recording, the live memory, table and charts")->capture_default_str();
  command->add_flag("--replay-only", flags->replay_only, "Replay and judge anew what lies in --output; replaces the table and charts there");
  AddForceOption(*command, flags->force);
  command->footer(
      "Example:\n"
      "  heaptape lab compare --relays 8000 --interval 120 -a glibc -a jemalloc -a mimalloc@2.0.9 -a mimalloc@3.0.1 --minutes 25 --output compare");
  command->callback([flags, &status] {
    CatchLabInterrupts();
    std::error_code error;
    std::filesystem::create_directories(flags->output, error);
    if (error) {
      status = Fail(absl::FailedPreconditionError(absl::StrCat(flags->output, ": cannot create: ", error.message(), "; choose another --output")));
      return;
    }
    absl::Status outcome = CheckFiles(*flags);
    if (outcome.ok() && !flags->replay_only) {
      Teller teller;
      outcome = RunLive(*flags, teller);
    }
    if (outcome.ok()) outcome = RunReplays(*flags);
    if (!outcome.ok()) status = Fail(outcome);
  });
}

}  // namespace heaptape::commands
