// heaptape: records every allocation a live program makes and replays it against any allocator.

#include <cstdio>
#include <new>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "replayer/commands/commands.h"
#include "replayer/commands/convert.h"
#include "replayer/commands/manual.h"
#include "replayer/export/external_text.h"

int main(int argc, char** argv) {
  using namespace heaptape::commands;
  CLI::App program("Records every allocation a program makes and replays it against any allocator.", "heaptape");
  program.set_version_flag("--version", "heaptape " HEAPTAPE_VERSION);
  program.require_subcommand(1);
  program.footer(
      "Examples:\n"
      "  heaptape record -o guard.tape -- tor -f torrc     record a program\n"
      "  heaptape replay guard.tape                        replay it on every allocator here\n"
      "  heaptape inspect guard.tape                       what is in the recording");

  program.failure_message([](const CLI::App* app, const CLI::Error& error) {
    // The -- before a program's own words is no part of what was not expected.
    const std::string what = absl::StrReplaceAll(error.what(), {{"not expected: -- ", "not expected: "}});
    // The words of the command line may be names of files that somebody else made.
    return absl::StrCat(heaptape::PlainText(what), "\nRun with ", app->get_help_ptr()->get_name(), " for more information.\n");
  });

  int status = kExitDone;
  AddRecord(program, status);
  AddAllocators(program, status);
  AddReplay(program, status);
  AddReport(program, status);
  AddCompare(program, status);
  AddInspect(program, status);
  AddSynth(program, status);
  AddExtend(program, status);
  AddVerify(program, status);
  AddDump(program, status);
  AddLoadTrace(program, status);
  AddConvert(program, status);
  AddCut(program, status);
  AddJoin(program, status);
  AddPack(program, status);
  AddScrub(program, status);
  AddLab(program, status);
  AddCtl(program, status);
  AddBisect(program, status);
  AddSweep(program, status);
  AddCheck(program, status);
  AddReduce(program, status);
  AddManual(program, status);

  try {
    program.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (program.exit(error) == 0) return kExitDone;
    // To git, 2 would be one more bad commit.
    return program.got_subcommand("check") ? kExitStopBisect : kExitUsage;
  } catch (const std::bad_alloc&) {
    std::fputs("heaptape: the system gave no more memory; close other programs, raise its limit (ulimit -v) or give a lower --memory-limit\n", stderr);
    return program.got_subcommand("check") ? kExitStopBisect : kExitFailed;
  }
  return status;
}
