// heaptape report: results as one HTML file to look at and to share.

#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "replayer/commands/commands.h"
#include "replayer/commands/output.h"
#include "replayer/commands/talk.h"
#include "replayer/export/json.h"
#include "replayer/report/html_report.h"
#include "traces/output_file.h"

namespace heaptape::commands {
namespace {

struct ReportArguments {
  std::vector<std::string> results;
  std::string output = "report.html";
  bool force = false;
  ViewOptions view;
};

int RunReport(const ReportArguments& arguments) {
  const std::string output = arguments.output == "-" ? "/dev/stdout" : arguments.output;
  if (absl::Status free = CheckOutputs({output}, arguments.force); !free.ok()) return Fail(free);
  absl::StatusOr<std::vector<ReplayReport>> reports = ReadResults(arguments.results);
  if (!reports.ok()) return Fail(reports.status());
  const absl::StatusOr<std::string> html = ToHtml(*reports, arguments.view);
  if (!html.ok()) return Fail(html.status());
  if (absl::Status written = WriteOutput(output, *html, arguments.force); !written.ok()) return Fail(written);
  if (!IsOpenDescriptor(output)) Tell(absl::StrCat("wrote ", output));
  return kExitDone;
}

}  // namespace

void AddReport(CLI::App& program, int& status) {
  auto arguments = std::make_shared<ReportArguments>();
  CLI::App* command = program.add_subcommand("report", "Turn results into one HTML file with charts, for sharing");
  command->add_option("results", arguments->results, "Files written by heaptape replay -o; results of the same recording are shown together")
      ->required()->type_name("RESULTS");
  command->add_option("-o,--output", arguments->output, "The HTML file; - for the standard output")
      ->type_name("FILE")->capture_default_str();
  AddForceOption(*command, arguments->force);
  AddViewOptions(*command, arguments->view);
  command->footer(
      "Examples:\n"
      "  heaptape replay guard.tape --seeds 5 -o results.json && heaptape report results.json -o report.html\n"
      "  heaptape report before.json after.json --baseline glibc -o both.html");
  command->callback([arguments, &status] { status = RunReport(*arguments); });
}

}  // namespace heaptape::commands
