// What each exporter says of the same results, and that JSON comes back as it went.

#include <algorithm>
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "replayer/export/csv.h"
#include "replayer/export/format.h"
#include "replayer/export/json.h"
#include "replayer/export/prometheus.h"
#include "replayer/export/summary.h"
#include "replayer/export/table.h"
#include "tests/replayer/sample_results.h"

namespace heaptape {
namespace {

using testing::HasSubstr;
using testing::Not;

std::vector<std::string> Lines(const std::string& text) { return absl::StrSplit(text, '\n'); }

std::vector<ReplayReport> OneTrace() { return {SampleReport("traces/guard.tape", 1)}; }
std::vector<ReplayReport> Fleet() { return {SampleReport("a/guard.tape", 1), SampleReport("b/exit.tape", 2)}; }

TEST(FormatTest, NumbersAsPeopleReadThem) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1024), "1.00 KiB");
  EXPECT_EQ(FormatBytes(-1.5 * 1024 * 1024), "-1.50 MiB");
  EXPECT_EQ(FormatBytes(405.1 * 1024 * 1024), "405.1 MiB");
  EXPECT_EQ(FormatBytes(1023.99 * 1024), "1.00 MiB");
  EXPECT_EQ(FormatGrowth(0), "0/day");
  EXPECT_EQ(FormatGrowth(8.0 * 1024 * 1024 * 1024), "+8.00 GiB/day");
  EXPECT_EQ(FormatGrowth(-2048), "-2.00 KiB/day");
  EXPECT_EQ(FormatShare(0.123), "+12.3 %");
  EXPECT_EQ(FormatShare(-0.0001), "0.0 %");
  EXPECT_EQ(FormatShare(123.456), "+12346 %");
  EXPECT_EQ(FormatCount(9999), "9999");
  EXPECT_EQ(FormatCount(60'700'000), "60.7 M");
  EXPECT_EQ(FormatDuration(15'000'000), "15 ms");
  EXPECT_EQ(FormatDuration(3'200'000'000), "3.2 s");
  EXPECT_EQ(FormatDuration(1'251'000'000'000), "20 min 51 s");
  EXPECT_EQ(FormatDuration(90'000'000'000'000), "1 d 1 h");
}

TEST(SummaryTest, SeedsOfOneAllocatorAreOneRowWithItsBand) {
  const auto summaries = Summarize(OneTrace(), {});
  ASSERT_TRUE(summaries.ok()) << summaries.status();
  ASSERT_EQ(summaries->size(), 1u);
  const Summary& summary = summaries->front();
  ASSERT_EQ(summary.rows.size(), 4u);
  EXPECT_EQ(summary.baseline, "mimalloc 2.0.9") << "the lowest steady RSS";
  const SummaryRow& best = summary.rows.front();
  EXPECT_EQ(best.label, "mimalloc 2.0.9");
  EXPECT_EQ(best.runs, 3u);
  EXPECT_EQ(best.ratio, 1.0);
  const auto reports = OneTrace();
  EXPECT_EQ(best.steady_rss_bytes.low, reports[0].runs[1].steady_rss_bytes);
  EXPECT_EQ(best.steady_rss_bytes.median, reports[0].runs[4].steady_rss_bytes);
  EXPECT_EQ(best.steady_rss_bytes.high, reports[0].runs[7].steady_rss_bytes);
  EXPECT_EQ(best.verdict, Verdict::kStable);
  const SummaryRow& failed = summary.rows.back();
  EXPECT_EQ(failed.label, "library 1.0");
  EXPECT_EQ(failed.failed_runs, 1u);
  EXPECT_EQ(failed.verdict, Verdict::kFailed);
  EXPECT_FALSE(failed.ratio.has_value());
}

TEST(SummaryTest, SortsByWhatIsAskedAndPutsFailuresLast) {
  const auto labels = [](SortKey key) {
    std::vector<std::string> labels;
    const auto summaries = Summarize(OneTrace(), {.sort = key});
    for (const SummaryRow& row : summaries->front().rows) labels.push_back(row.label);
    return labels;
  };
  EXPECT_THAT(labels(SortKey::kName), testing::ElementsAre("glibc 2.36", "mimalloc 2.0.9",
                                                           "mimalloc 3.0.1 purge_delay=10", "library 1.0"));
  EXPECT_EQ(labels(SortKey::kGrowth)[2], "mimalloc 3.0.1 purge_delay=10");
  EXPECT_EQ(labels(SortKey::kPeak)[0], "mimalloc 2.0.9");
  EXPECT_EQ(labels(SortKey::kPeak)[3], "library 1.0");
}

TEST(SummaryTest, BaselineIsFoundByNameOrRefusedWithTheNamesThereAre) {
  const auto by_family = Summarize(OneTrace(), {.baseline = "glibc"});
  ASSERT_TRUE(by_family.ok());
  EXPECT_EQ(by_family->front().baseline, "glibc 2.36");
  EXPECT_NEAR(*by_family->front().rows[0].ratio, 97.0 / 217.0, 0.01);
  EXPECT_EQ(Summarize(OneTrace(), {.baseline = "mimalloc@3.0.1"})->front().baseline, "mimalloc 3.0.1 purge_delay=10");
  const auto unknown = Summarize(OneTrace(), {.baseline = "hoard"});
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(unknown.status().message()), HasSubstr("glibc 2.36, "));
}

TEST(SummaryTest, RowsOfTheSameNameSayWhatTellsThemApart) {
  auto reports = OneTrace();
  RunResult other = reports[0].runs[0];
  other.origin = "built from v2";
  other.library_path += ".2";
  reports[0].runs.push_back(other);
  const auto labels = [&] {
    std::vector<std::string> labels;
    const auto summaries = Summarize(reports, {.sort = SortKey::kName});
    for (const SummaryRow& row : summaries->front().rows) labels.push_back(row.label);
    return labels;
  };
  EXPECT_THAT(labels(), testing::IsSupersetOf({"glibc 2.36 (Debian package)", "glibc 2.36 (built from v2)"}));
  reports[0].runs.back().origin = "Debian package";
  EXPECT_THAT(labels(), testing::Contains("glibc 2.36 (/usr/lib/x86_64-linux-gnu/libglibc.so.2)"));
  reports[0].runs.back().settings.touch = "full";
  EXPECT_THAT(labels(), testing::Contains("glibc 2.36 (fast virtual full off 4)"));
}

TEST(SummaryTest, PoolWeighsEveryTraceTheSame) {
  const auto summaries = Summarize(Fleet(), {.baseline = "glibc"});
  ASSERT_TRUE(summaries.ok()) << summaries.status();
  ASSERT_EQ(summaries->size(), 3u);
  const Summary& pooled = summaries->back();
  EXPECT_FALSE(pooled.report.has_value());
  EXPECT_EQ(pooled.title, "all 2 traces");
  const auto best = std::find_if(pooled.rows.begin(), pooled.rows.end(),
                                 [](const SummaryRow& row) { return row.label == "mimalloc 2.0.9"; });
  EXPECT_EQ(best->runs, 6u);
  EXPECT_NEAR(*best->ratio, 97.0 / 217.0, 0.01);
}

TEST(SummaryTest, GrowthSeenForAMinuteIsNotPooledWithGrowthByTheDay) {
  std::vector<ReplayReport> reports = Fleet();
  for (RunResult& run : reports[1].runs) {
    run.steady_window_ns = 60'000'000'000;
    run.growth_bytes_per_day = 1e15;
  }
  const auto summaries = Summarize(reports, {.sort = SortKey::kName});
  ASSERT_TRUE(summaries.ok()) << summaries.status();
  ASSERT_EQ(summaries->size(), 3u);
  const Summary &first = (*summaries)[0], &second = (*summaries)[1], &pooled = (*summaries)[2];
  for (std::size_t i = 0; i < pooled.rows.size(); ++i) {
    if (pooled.rows[i].failed_runs > 0) continue;
    EXPECT_FALSE(second.rows[i].growth_by_day);
    EXPECT_EQ(second.rows[i].growth_bytes_per_day.median, 1e15);
    EXPECT_TRUE(pooled.rows[i].growth_by_day);
    EXPECT_EQ(pooled.rows[i].growth_bytes_per_day.high, first.rows[i].growth_bytes_per_day.high);
    EXPECT_EQ(pooled.rows[i].steady_rss_bytes.high, second.rows[i].steady_rss_bytes.high);
  }
}

TEST(SummaryTest, GroundTruthStandsBesideTheReplayUnderTheSameAllocator) {
  const auto summaries = Summarize(OneTrace(), {});
  const std::string sentence = TruthSentence(summaries->front());
  EXPECT_THAT(sentence, HasSubstr("recorded process (glibc 2.36): peak 205.0 MiB, steady 205.0 MiB"));
  EXPECT_THAT(sentence, HasSubstr("replay under glibc 2.36: peak 209."));
  EXPECT_THAT(sentence, HasSubstr("steady 20"));
}

TEST(GrowthTextTest, SaysOfDaysOnlyWhatTheWindowAllows) {
  constexpr double kDay = 86400e9;
  SummaryRow row;
  row.growth_by_day = true;
  row.growth_bytes_per_day = {1e9, 1e9, 1e9};
  row.growth_low_bytes_per_day = 0.9e9;
  row.growth_high_bytes_per_day = 1.1e9;
  EXPECT_EQ(GrowthText(row), "+953.7 MiB/day");
  row.growth_bytes_per_day.high = 2e9;
  EXPECT_EQ(GrowthText(row), "+953.7 MiB/day (+953.7 MiB/day .. +1.86 GiB/day)");
  row.growth_low_bytes_per_day = -2e9;
  EXPECT_EQ(GrowthText(row), "±1.86 GiB/day") << "no growth is as likely";
  row.growth_low_bytes_per_day = row.growth_high_bytes_per_day = 0;
  EXPECT_EQ(GrowthText(row), "0/day");

  row.growth_by_day = false;
  row.steady_window_ns = {76e9, 76e9, 76e9};
  const double per_day = 8.2 * 0x1p20 * kDay / 76e9;
  row.growth_bytes_per_day = {per_day, per_day, per_day};
  row.growth_low_bytes_per_day = row.growth_high_bytes_per_day = per_day;
  EXPECT_EQ(GrowthText(row), "+8.20 MiB in 76 s");
  row.growth_low_bytes_per_day = -per_day / 2;
  EXPECT_EQ(GrowthText(row), "±8.20 MiB in 76 s");
  row.growth_low_bytes_per_day = row.growth_high_bytes_per_day = 0;
  EXPECT_EQ(GrowthText(row), "0");
}

// The sample's trace cut to its first minutes.
std::vector<ReplayReport> ShortTrace() {
  auto reports = OneTrace();
  for (RunResult& run : reports[0].runs) {
    run.series.resize(std::min<std::size_t>(run.series.size(), 300));
    Judge(run);
  }
  return reports;
}

TEST(RemarksTest, AShortSteadyStateIsToldWithWhatToDo) {
  const auto advice = HasSubstr("whether it goes on for days cannot be said; record for 20 minutes or longer");
  EXPECT_THAT(Remarks(OneTrace()), Not(testing::Contains(advice)));
  EXPECT_THAT(Remarks(ShortTrace()), testing::Contains(advice));
  const auto summaries = Summarize(ShortTrace(), {});
  for (const SummaryRow& row : summaries->front().rows) {
    EXPECT_NE(row.verdict, Verdict::kBloating) << row.label;
    EXPECT_NE(row.verdict, Verdict::kGrowing) << row.label;
    EXPECT_THAT(GrowthText(row), Not(HasSubstr("/day"))) << row.label;
  }
}

TEST(RemarksTest, AReplayFarFromTheRecordedProcessIsNotToBeTrustedBlindly) {
  auto reports = OneTrace();
  for (TruthSample& sample : reports[0].truth) sample.heap_rss_bytes /= 2;
  EXPECT_THAT(Remarks(reports), testing::Contains(HasSubstr("guard.tape: the replay under glibc 2.36 differs by +10")));
}

TEST(RemarksTest, APartOfTheHeapThatWasNotRecordedIsTold) {
  auto reports = OneTrace();
  reports[0].trace.events = 100'000;
  reports[0].trace.unmatched_frees = {.unknown = 500, .missed = 0};
  const auto remark = HasSubstr("guard.tape: 17.0 k frees of blocks that were not seen being allocated: a part of the heap was not recorded");
  EXPECT_THAT(Remarks(reports), Not(testing::Contains(HasSubstr("a part of the heap")))) << "one in a hundred frees";
  reports[0].trace.unmatched_frees->unknown = 17'000;
  EXPECT_THAT(Remarks(reports), testing::Contains(remark));
  const auto again = ParseJson(*ToJson(reports, {}), "again");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ((*again)[0].trace.unmatched_frees, reports[0].trace.unmatched_frees);
}

TEST(SummaryTest, TheAllocatorRecordedUnderIsThatVersionWhereItIsThere) {
  auto reports = OneTrace();
  const auto marked = [&] {
    std::vector<std::string> labels;
    const auto summaries = Summarize(reports, {.sort = SortKey::kName});
    for (const SummaryRow& row : summaries->front().rows) {
      if (row.recorded_under) labels.push_back(row.label);
    }
    return labels;
  };
  RunResult newer = reports[0].runs[0];
  newer.version = "2.41";
  reports[0].runs.push_back(newer);
  EXPECT_THAT(marked(), testing::ElementsAre("glibc 2.36"));
  reports[0].trace.recorded_under = "glibc 2.31";
  EXPECT_THAT(marked(), testing::ElementsAre("glibc 2.36", "glibc 2.41"));
}

TEST(TableTest, SaysWhoHoldsPartlyUsedPages) {
  for (const auto& text : {*ToTable(OneTrace(), {}, {}), *ToMarkdown(OneTrace(), {})}) {
    EXPECT_THAT(text, HasSubstr("who holds partly used pages"));
    EXPECT_THAT(text, HasSubstr("glibc 2.36:"));
    EXPECT_THAT(text, HasSubstr("  buf_add+0x2f (tor)"));
    EXPECT_THAT(text, HasSubstr("main+0x10 (tor)")) << "who called it";
    EXPECT_THAT(text, HasSubstr("146.5 KiB"));
  }
}

TEST(TableTest, ShowsEveryColumnWhereThereIsRoom) {
  const auto table = ToTable(OneTrace(), {}, {});
  ASSERT_TRUE(table.ok());
  for (const char* title : {"allocator", "version", "peak", "steady", "growth", "live", "overhead", "faults", "syscalls",
                            "time", "verdict", "to mimalloc 2.0.9"}) {
    EXPECT_THAT(*table, HasSubstr(title));
  }
  EXPECT_THAT(*table, HasSubstr("traces/guard.tape: tor, 6.0 M events in 20 min 0 s, recorded under glibc 2.36"));
  EXPECT_THAT(*table, HasSubstr("bloating"));
  EXPECT_THAT(*table, HasSubstr("mimalloc purge_delay=10"));
  EXPECT_THAT(*table, Not(HasSubstr("\x1b")));
}

TEST(TableTest, FitsTheTerminalAndSaysWhatItLeftOut) {
  for (const std::size_t width : {200u, 120u, 80u, 60u}) {
    const auto table = ToTable(OneTrace(), {}, {.width = width});
    const std::vector<std::string> lines = Lines(*table);
    for (const std::string& line : lines) EXPECT_LE(line.size(), width + 2) << line;  // "±" is two bytes
    const auto head = std::find_if(lines.begin(), lines.end(), [](const std::string& line) { return line.rfind("allocator", 0) == 0; });
    ASSERT_NE(head, lines.end());
    EXPECT_THAT(*head, HasSubstr("steady"));
    if (width < 120) {
      EXPECT_THAT(*table, HasSubstr("(too narrow for: "));
    }
  }
}

TEST(TableTest, ColourOnlyWhereAskedFor) {
  EXPECT_THAT(*ToTable(OneTrace(), {}, {.colour = true}), HasSubstr("\x1b[32mstable"));
}

TEST(TableTest, TextFromFilesDoesNotSteerTheTerminal) {
  auto reports = OneTrace();
  for (RunResult& run : reports[0].runs) run.version = "1\x1b[2J";
  EXPECT_THAT(*ToTable(reports, {}, {}), HasSubstr("1\\x1b[2J"));
}

TEST(MarkdownTest, IsATableWithTheCommandThatRepeatsIt) {
  const auto markdown = ToMarkdown(OneTrace(), {});
  ASSERT_TRUE(markdown.ok());
  EXPECT_THAT(*markdown, HasSubstr("### guard.tape\n"));
  EXPECT_THAT(*markdown, HasSubstr("|:---|:---|---:|"));
  EXPECT_THAT(*markdown, HasSubstr("heaptape replay traces/guard.tape --seeds 3\n"));
  EXPECT_THAT(*markdown, HasSubstr("- library 1.0: failed: signal 11"));
}

TEST(ShellTextTest, QuotesWhatAShellWouldChange) {
  EXPECT_EQ(ShellText({"heaptape", "a b", "it's", ""}), "heaptape 'a b' 'it'\\''s' ''");
}

TEST(CsvTest, OneRowPerSampleAndTheRecordedProcess) {
  auto reports = OneTrace();
  reports[0].trace.path = "a,\"b\".tape";
  const std::vector<std::string> lines = Lines(ToCsv(reports));
  EXPECT_EQ(lines.size(), 1 + 121 + 9 * 601 + 1u);
  EXPECT_EQ(lines[1], "\"a,\"\"b\"\".tape\",recorded process,glibc 2.36,,,0.000000000,,0,,,");
  for (std::size_t i = 1; i + 1 < lines.size(); ++i) {
    ASSERT_EQ(lines[i].rfind("\"a,\"\"b\"\".tape\",", 0), 0u);
    ASSERT_EQ(std::count(lines[i].begin(), lines[i].end(), ','), 11) << lines[i];
  }
  EXPECT_EQ(lines[lines.size() - 2].substr(15, 36), "mimalloc,3.0.1,purge_delay=10,2,1200");
}

TEST(PrometheusTest, EveryRunIsASampleWithEscapedLabels) {
  auto reports = OneTrace();
  reports[0].trace.path = "a\"b\\c\n.tape";
  const std::string text = ToPrometheus(reports);
  EXPECT_THAT(text, HasSubstr("# TYPE heaptape_peak_rss_bytes gauge\n"));
  EXPECT_THAT(text, HasSubstr("heaptape_peak_rss_bytes{trace=\"a\\\"b\\\\c\\\\n.tape\",trace_digest=\""));
  EXPECT_THAT(text, HasSubstr("allocator=\"mimalloc\",version=\"3.0.1\",tunables=\"purge_delay=10\",seed=\"2\"} "));
  EXPECT_THAT(text, HasSubstr("verdict=\"bloating\"} 1\n"));
  const auto count = [&](const std::string& what) {
    std::size_t found = 0;
    for (const std::string& line : Lines(text)) found += line.rfind(what, 0) == 0;
    return found;
  };
  EXPECT_EQ(count("heaptape_peak_rss_bytes{"), 9u) << "a run that failed has no peak";
  EXPECT_EQ(count("heaptape_failed{"), 10u);
  EXPECT_EQ(count("heaptape_growth_bytes_per_day{"), 9u);
}

TEST(PrometheusTest, ARateByTheDayIsNotMadeOfMinutes) {
  const std::string text = ToPrometheus(ShortTrace());
  EXPECT_THAT(text, Not(HasSubstr("heaptape_growth_bytes_per_day{")));
  EXPECT_THAT(text, HasSubstr("heaptape_steady_window_seconds{"));
}

TEST(JsonTest, HasTheKeysThatScriptsRelyOn) {
  const auto text = ToJson(OneTrace(), {});
  ASSERT_TRUE(text.ok());
  const nlohmann::json json = nlohmann::json::parse(*text);
  EXPECT_EQ(json["schema_version"], 2);
  ASSERT_EQ(json["runs"].size(), 10u);
  for (const nlohmann::json& run : json["runs"]) {
    for (const char* key : {"allocator", "version", "seed", "peak_rss_bytes", "steady_rss_bytes", "end_rss_bytes",
                            "growth_bytes_per_day", "verdict", "events_replayed", "wall_ns", "series_digest", "error"}) {
      EXPECT_TRUE(run.contains(key)) << key;
    }
  }
  EXPECT_TRUE(json["runs"][0]["error"].is_null());
  EXPECT_EQ(json["runs"][9]["error"], "signal 11 (Segmentation fault) at event 1234");
  EXPECT_EQ(json["summaries"][0]["rows"][0]["label"], "mimalloc 2.0.9");
}

std::string NumbersDocument() {
  std::ifstream file(HEAPTAPE_NUMBERS);
  EXPECT_TRUE(file) << HEAPTAPE_NUMBERS;
  return {std::istreambuf_iterator<char>(file), {}};
}

void CollectKeys(const nlohmann::json& json, std::set<std::string>& keys) {
  for (const auto& [key, value] : json.items()) {
    if (json.is_object() && key != "purge_delay") keys.insert(key);  // a tunable's own name
    if (value.is_structured()) CollectKeys(value, keys);
  }
}

TEST(NumbersTest, EveryKeyAndColumnIsDefined) {
  const std::string document = NumbersDocument();
  std::set<std::string> names;
  CollectKeys(nlohmann::json::parse(*ToJson(Fleet(), {})), names);
  const std::vector<std::string> csv = absl::StrSplit(Lines(ToCsv(OneTrace()))[0], ',');
  names.insert(csv.begin(), csv.end());
  for (const std::string& line : Lines(ToPrometheus(OneTrace()))) {
    if (absl::StartsWith(line, "# TYPE ")) names.insert(std::vector<std::string>(absl::StrSplit(line, ' '))[2]);
  }
  for (const std::string& line : Lines(*ToMarkdown(OneTrace(), {}))) {
    if (!absl::StartsWith(line, "| allocator") && !absl::StartsWith(line, "| where") && !absl::StartsWith(line, "| who")) continue;
    for (const std::string& title : std::vector<std::string>(absl::StrSplit(line, " | "))) {
      names.insert(absl::StartsWith(title, "to mimalloc") ? "to BASELINE" : std::string(absl::StripSuffix(absl::StripPrefix(title, "| "), " |")));
    }
  }
  EXPECT_GT(names.size(), 100u);
  for (const std::string& name : names) EXPECT_THAT(document, HasSubstr("`" + name + "`"));
}

TEST(JsonTest, ComesBackAsItWent) {
  const auto text = ToJson(Fleet(), {});
  const auto parsed = ParseJson(*text, "results.json");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  ASSERT_EQ(parsed->size(), 2u);
  EXPECT_EQ((*parsed)[1].runs[3].settings, Fleet()[1].runs[3].settings);
  EXPECT_EQ((*parsed)[1].runs[3].series, Fleet()[1].runs[3].series);
  EXPECT_EQ((*parsed)[1].runs[3].heap_maps, Fleet()[1].runs[3].heap_maps);
  EXPECT_EQ(*ToJson(*parsed, {}), *text);
}

TEST(JsonTest, WhatIsNotResultsIsRefusedWithTheReason) {
  const auto why = [](const std::string& text) {
    const auto parsed = ParseJson(text, "x.json");
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kDataLoss) << text.substr(0, 60);
    return std::string(parsed.status().message());
  };
  EXPECT_THAT(why(""), HasSubstr("x.json: not JSON"));
  EXPECT_THAT(why("[]"), HasSubstr("\"schema_version\""));
  EXPECT_THAT(why("{\"schema_version\": 99}"), HasSubstr("schema_version 99"));
  const std::string good = *ToJson(OneTrace(), {});
  const auto damaged = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    const std::size_t at = text.rfind(from);
    EXPECT_NE(at, std::string::npos) << from;
    text.replace(at, from.size(), to);
    return why(text);
  };
  EXPECT_THAT(damaged("\"peak_rss_bytes\":0", "\"peak_rss_bytes\":-1"), HasSubstr("peak_rss_bytes"));
  EXPECT_THAT(damaged("\"verdict\":\"failed\"", "\"verdict\":\"fine\""), HasSubstr("fine"));
  EXPECT_THAT(damaged("\"heap_rss_bytes\":[", "\"heap_rss_bytes\":[1"), HasSubstr("length"));
  EXPECT_THAT(damaged("\"trace\":0", "\"trace\":7"), HasSubstr("not there"));
  // Any cut is refused, none crashes.
  for (std::size_t length = 0; length < good.size(); length += good.size() / 97) why(good.substr(0, length));
}

}  // namespace
}  // namespace heaptape
