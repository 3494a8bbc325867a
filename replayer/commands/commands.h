// The subcommands of `heaptape`: one file per command, each adding itself to the program's options.
//
// A command parses, calls and prints. stdout is data, stderr is talk. Its callback leaves the exit status
// in `status`: see kExit*. (`record` leaves the recorded program's own.)

#ifndef HEAPTAPE_REPLAYER_COMMANDS_COMMANDS_H_
#define HEAPTAPE_REPLAYER_COMMANDS_COMMANDS_H_

#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"

namespace heaptape::commands {

inline constexpr int kExitDone = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitThresholdExceeded = 3;
inline constexpr int kExitStopBisect = 128;  // of `check` alone: git bisect run gives up

void AddRecord(CLI::App& program, int& status);
void AddCtl(CLI::App& program, int& status);
void AddReplay(CLI::App& program, int& status);
void AddAllocators(CLI::App& program, int& status);
void AddInspect(CLI::App& program, int& status);
void AddSynth(CLI::App& program, int& status);
void AddExtend(CLI::App& program, int& status);
void AddVerify(CLI::App& program, int& status);
void AddDump(CLI::App& program, int& status);
void AddLoadTrace(CLI::App& program, int& status);
void AddCut(CLI::App& program, int& status);
void AddJoin(CLI::App& program, int& status);
void AddPack(CLI::App& program, int& status);
void AddScrub(CLI::App& program, int& status);
void AddLab(CLI::App& program, int& status);
void AddReport(CLI::App& program, int& status);
void AddCompare(CLI::App& program, int& status);
void AddBisect(CLI::App& program, int& status);
void AddSweep(CLI::App& program, int& status);
void AddCheck(CLI::App& program, int& status);
void AddReduce(CLI::App& program, int& status);

// Prints "heaptape: what happened" to stderr and returns the exit status for it.
int Fail(const absl::Status& status);

// A part that was installed beside the program ("heaptape-worker", "libheaptape.so"), as an absolute path
// found from the running executable, so that an installed tree works wherever it is moved to.
std::string PartPath(const std::string& name);

}  // namespace heaptape::commands

#endif  // HEAPTAPE_REPLAYER_COMMANDS_COMMANDS_H_
