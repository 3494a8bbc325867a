#include "replayer/bisect/history_report.h"

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace heaptape {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

Measurement Measured(char digit, const std::string& name, double megabytes, const std::string& subject) {
  Measurement measurement;
  measurement.commit = {.hash = std::string(40, digit), .date = "2024-05-0" + std::string(1, digit), .author = "Ada Author",
                        .subject = subject, .name = name};
  RunResult run;
  run.steady_rss_bytes = static_cast<std::uint64_t>(megabytes * 1e6);
  run.peak_rss_bytes = 2 * run.steady_rss_bytes;
  run.events_replayed = 1000;
  measurement.outcome.runs = {run};
  FillValue(Metric::kSteady, &measurement);
  measurement.judgement = megabytes > 150 ? Judgement::kBad : Judgement::kGood;
  return measurement;
}

Measurement Skipped(char digit, const std::string& reason) {
  Measurement measurement = Measured(digit, "skipped1", 0, "Work in progress");
  measurement.outcome.runs.clear();
  measurement.outcome.skip_reason = reason;
  measurement.judgement = Judgement::kSkipped;
  return measurement;
}

HistoryReport BisectedReport() {
  HistoryReport report;
  report.trace = {.path = "/home/secret/guard.tape", .digest = "abcd", .program = "secretd", .recorded_under = "glibc 2.36",
                  .events = 1000, .duration_ns = 60'000'000'000};
  report.family = "mimalloc";
  report.source = "/home/secret/src/mimalloc";
  report.kernel = "6.1";
  report.command = {"/home/secret/bin/heaptape", "bisect", "/home/secret/guard.tape", "--family", "mimalloc", "--source",
                    "/home/secret/src/mimalloc", "--good", "v1", "--bad", "v2", "--build", "make -C '/home/secret/x y' all"};
  Bisection bisection;
  bisection.end = Bisection::End::kFound;
  bisection.measured = {Measured('1', "v1", 100, "Release | 1"), Skipped('2', "cc: /home/secret/.cache/heaptape/log: error: ';'\nmore"),
                        Measured('3', "before", 110, "Tidy"), Measured('4', "culprit", 700, "Keep <all> pages, \"forever\""),
                        Measured('5', "v2", 710, "Release 2")};
  bisection.good = bisection.measured[0];
  bisection.bad = bisection.measured[4];
  bisection.first = bisection.measured[3];
  bisection.before = bisection.measured[2];
  bisection.limit = 150e6;
  bisection.log = "git bisect start\n";
  report.bisection = bisection;
  return report;
}

TEST(HistoryReportTest, TableShowsEveryCommitAndWhatWasFound) {
  const std::string table = HistoryTable(BisectedReport(), 200);
  EXPECT_THAT(table, HasSubstr("First bad commit: " + std::string(40, '4') + " of 2024-05-04 by Ada Author: Keep <all> pages"));
  EXPECT_THAT(table, HasSubstr("(6.36x)"));
  EXPECT_THAT(table, HasSubstr("first bad"));
  EXPECT_THAT(table, HasSubstr("skipped"));
  EXPECT_THAT(table, HasSubstr("error: ';'"));
  EXPECT_THAT(table, Not(HasSubstr("\nmore")));
}

TEST(HistoryReportTest, TableFitsTheTerminal) {
  HistoryReport report = BisectedReport();
  report.bisection->measured[0].commit.subject = std::string(300, 'x');
  const std::string table = HistoryTable(report, 100);
  const std::string first_rows = table.substr(0, table.find("\n\n"));
  std::size_t start = 0;
  while (start < first_rows.size()) {
    const std::size_t end = std::min(first_rows.find('\n', start), first_rows.size());
    std::size_t columns = 0;
    for (std::size_t i = start; i < end; ++i) columns += (first_rows[i] & 0xc0) != 0x80;
    EXPECT_LE(columns, 100u) << first_rows.substr(start, end - start);
    start = end + 1;
  }
}

TEST(HistoryReportTest, JsonHasWhatAProgramWants) {
  const auto json = nlohmann::json::parse(HistoryJson(BisectedReport()));
  EXPECT_EQ(json["schema_version"], 1);
  EXPECT_EQ(json["end"], "found");
  EXPECT_EQ(json["first"]["hash"], std::string(40, '4'));
  EXPECT_EQ(json["first"]["value_before"], 110e6);
  EXPECT_EQ(json["first"]["value_after"], 700e6);
  ASSERT_EQ(json["commits"].size(), 5u);
  EXPECT_TRUE(json["commits"][1]["value"].is_null());
  EXPECT_EQ(json["commits"][3]["runs"][0]["steady_rss_bytes"], 700'000'000);
}

TEST(HistoryReportTest, BytesThatAreNoUtf8DoNotStopTheJson) {
  HistoryReport report = BisectedReport();
  report.bisection->measured[0].commit.author = "Ad\xe9le";
  EXPECT_FALSE(nlohmann::json::parse(HistoryJson(report), nullptr, false).is_discarded());
}

TEST(HistoryReportTest, ADamagedRecordingIsSaidToBeMeasuredUpToItsDamage) {
  HistoryReport report = BisectedReport();
  EXPECT_THAT(HistoryIssue(report), Not(HasSubstr("damaged")));
  for (Measurement& measurement : report.bisection->measured) {
    for (RunResult& run : measurement.outcome.runs) run.events_replayed = 700;
  }
  const std::string sentence = "The recording is damaged: every commit was measured on its first 700 of 1000 events.";
  EXPECT_THAT(HistoryTable(report, 100), HasSubstr(sentence));
  EXPECT_THAT(HistoryIssue(report), HasSubstr(sentence));
  EXPECT_EQ(nlohmann::json::parse(HistoryJson(report))["trace"]["events_measured"], 700);
}

TEST(HistoryReportTest, CsvQuotes) {
  EXPECT_THAT(HistoryCsv(BisectedReport()), HasSubstr("\"Keep <all> pages, \"\"forever\"\"\",first bad,700000000,700000000,700000000,\n"));
}

TEST(HistoryReportTest, ChartIsWellFormedAndMarksEachCommit) {
  const std::string chart = HistoryChart(BisectedReport());
  std::size_t circles = 0;
  for (std::size_t at = 0; (at = chart.find("<circle", at)) != std::string::npos; ++at) ++circles;
  EXPECT_EQ(circles, 5u);
  EXPECT_THAT(chart, HasSubstr("Keep &lt;all&gt; pages"));
  EXPECT_THAT(chart, Not(HasSubstr("<all>")));
}

TEST(HistoryReportTest, IssueTellsTheMaintainersAndNobodysSecrets) {
  const std::string issue = HistoryIssue(BisectedReport());
  EXPECT_THAT(issue, HasSubstr("# steady-state heap RSS rose with 444444444444"));
  EXPECT_THAT(issue, HasSubstr("heaptape bisect recording.tape --family mimalloc --source mimalloc --good v1 --bad v2"));
  EXPECT_THAT(issue, HasSubstr("git bisect start"));
  EXPECT_THAT(issue, HasSubstr("1000 events in 60 s, made under glibc 2.36, digest abcd"));
  EXPECT_THAT(issue, HasSubstr("Release \\| 1"));
  EXPECT_THAT(issue, Not(HasSubstr("secret")));
  EXPECT_THAT(issue, Not(HasSubstr("/home")));
}

TEST(HistoryReportTest, ASourceThatIsAnAddressStays) {
  HistoryReport report = BisectedReport();
  report.source = report.command[6] = "https://example.org/mimalloc.git";
  EXPECT_THAT(HistoryIssue(report), HasSubstr("--source https://example.org/mimalloc.git"));
  report.source = report.command[6] = "https://ada:token@example.org/mimalloc.git";
  EXPECT_THAT(HistoryIssue(report), HasSubstr("--source https://example.org/mimalloc.git"));
}

TEST(HistoryReportTest, TheIssuesCommandIsWhatSomebodyElseCanRun) {
  HistoryReport report = BisectedReport();
  report.trace.path = "../secret.tape";
  report.source = "../secret/clone";
  report.command = {"./heaptape", "bisect", "../secret.tape", "--family=mimalloc", "--source=../secret/clone", "--good", "v1", "--bad", "v2", "-m", "peak",
                    "--issue", "secret.md", "--log=secret.log", "-o", "secret.json", "-fjson", "--chart", "secret.svg", "--seeds", "3"};
  EXPECT_THAT(HistoryIssue(report), HasSubstr("\nheaptape bisect recording.tape --family=mimalloc --source=mimalloc --good v1 --bad v2 -m peak --seeds 3\n"));
  EXPECT_THAT(HistoryIssue(report), Not(HasSubstr("secret.")));
}

TEST(HistoryReportTest, TheIssuesCommandKeepsWhatEveryMachineHas) {
  HistoryReport report = BisectedReport();
  report.command = {"heaptape", "bisect", report.trace.path, "--force", "--build", "/usr/bin/make 2>/dev/null; cp /home/ada/x.so>/tmp/y&"};
  EXPECT_THAT(HistoryIssue(report), HasSubstr("\nheaptape bisect recording.tape --build '/usr/bin/make 2>/dev/null; cp x.so>y&'\n"));
}

TEST(HistoryReportTest, WhatStrangersWroteStaysText) {
  HistoryReport report = BisectedReport();
  for (Measurement& measurement : report.bisection->measured) {
    measurement.commit.name = "```";
    measurement.commit.author = "Eve\x1b]0;owned\a";
    measurement.commit.subject = "=cmd|' /C calc'!A0 <script>\r\n| [x](http://evil) \xe2\x80\xae\x80";
  }
  report.bisection->first->commit = report.bisection->measured[0].commit;
  report.bisection->log = "# bad: <script>\x1b[2J\n```\ngit bisect start\n";
  report.machine = "<img src=x>";
  const std::string issue = HistoryIssue(report), csv = HistoryCsv(report), chart = HistoryChart(report), table = HistoryTable(report, 0);
  for (const std::string& text : {issue, csv, chart, table, HistoryJson(report)}) {
    for (const char c : text) EXPECT_TRUE(static_cast<unsigned char>(c) >= 0x20 || c == '\n') << text;
    EXPECT_THAT(text, Not(HasSubstr("\xe2\x80\xae")));
  }
  EXPECT_THAT(issue, HasSubstr("\\<script>\\\\r\\\\n\\| \\[x\\](http://evil) \\\\u202e\\\\x80 |\n"));
  EXPECT_THAT(issue, HasSubstr("machine: \\<img src=x>"));
  // Only a longer fence ends these blocks.
  EXPECT_THAT(issue, HasSubstr("\n````\n```            "));
  EXPECT_THAT(issue, HasSubstr("\n````\n# bad: <script>\\x1b[2J\n```\ngit bisect start\n````\n"));
  EXPECT_THAT(csv, HasSubstr(",'=cmd|"));
  EXPECT_THAT(chart, Not(HasSubstr("<script")));
}

TEST(HistoryReportTest, ASweepNamesItsLargestStepAndHowToGoOn) {
  HistoryReport report = BisectedReport();
  report.sweep = report.bisection->measured;
  report.bisection.reset();
  const std::string table = HistoryTable(report, 200);
  EXPECT_THAT(table, HasSubstr("Largest step: before to culprit"));
  EXPECT_THAT(table, HasSubstr("heaptape bisect --good before --bad culprit"));
  EXPECT_THAT(table, HasSubstr("step up"));
  const auto json = nlohmann::json::parse(HistoryJson(report));
  EXPECT_EQ(json["kind"], "sweep");
  EXPECT_EQ(json["steps"][0]["change"], 590e6);
}

}  // namespace
}  // namespace heaptape
