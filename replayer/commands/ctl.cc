// heaptape ctl: looks at and steers a recording that is under way.

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "recorder/control.h"
#include "recorder/raw_event.h"
#include "replayer/commands/commands.h"
#include "replayer/export/external_text.h"

namespace heaptape::commands {
namespace {

struct CtlArguments {
  int pid = 0;
  std::string action = "status";
  std::string format = "table";
};

nlohmann::ordered_json StatusAsJson(const ControlBlock& block) {
  const bool ended = block.end_reason.load() != 0;
  return {{"schema_version", 1},
          {"pid", block.target_pid.load()},
          {"writer_pid", block.writer_pid.load()},
          {"state", ended ? "ended" : block.recording.load() ? "recording" : "suspended"},
          {"output", std::string(block.output, strnlen(block.output, sizeof(block.output)))},
          {"running_seconds", static_cast<double>(block.running_ns.load()) / 1e9},
          {"events", block.events.load()},
          {"events_per_second", block.events_per_second.load()},
          {"live_objects", block.live_objects.load()},
          {"live_bytes", block.live_bytes.load()},
          {"bytes_written", block.bytes_written.load()},
          {"segments", block.segments.load()},
          {"waits", block.waits.load()},
          {"wait_seconds", static_cast<double>(block.wait_ns.load()) / 1e9},
          {"large_block_waits", block.big_waits.load()},
          {"large_block_wait_seconds", static_cast<double>(block.big_wait_ns.load()) / 1e9},
          {"lost_events", block.lost.load()},
          {"disk_free_bytes", block.disk_free_bytes.load()},
          {"writer_cpu_seconds", static_cast<double>(block.writer_cpu_ns.load()) / 1e9},
          {"writer_peak_rss_bytes", block.writer_peak_rss_bytes.load()}};
}

absl::Status Send(ControlBlock& block, Command command) {
  const std::uint32_t before = block.commands_done.load();
  block.command.store(command);
  for (int i = 0; i < 500; ++i) {
    if (block.commands_done.load() != before) return absl::OkStatus();
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return absl::DeadlineExceededError(absl::StrCat("writer process ", block.writer_pid.load(),
                                                  ": no answer within 5 s. See whether it is stopped or its disk hangs."));
}

int Run(const CtlArguments& arguments) {
  const absl::StatusOr<ControlBlock*> block = FindControlBlock(arguments.pid);
  if (!block.ok()) return Fail(block.status());
  const Command command = arguments.action == "start"   ? Command::kStart
                          : arguments.action == "stop"  ? Command::kStop
                          : arguments.action == "flush" ? Command::kFlush
                                                        : Command::kNone;
  if (command != Command::kNone) {
    if (absl::Status status = Send(**block, command); !status.ok()) return Fail(status);
  }
  const nlohmann::ordered_json json = StatusAsJson(**block);
  if (arguments.format == "json") {
    std::printf("%s\n", JsonText(json).c_str());
    return kExitDone;
  }
  for (const auto& [name, value] : json.items()) {
    if (name == "schema_version") continue;
    std::printf("%-26s %s\n", name.c_str(), value.is_string() ? PlainText(value.get<std::string>()).c_str() : JsonText(value, -1).c_str());
  }
  return kExitDone;
}

}  // namespace

void AddCtl(CLI::App& program, int& status) {
  auto arguments = std::make_shared<CtlArguments>();
  CLI::App* command = program.add_subcommand("ctl", "Look at and steer a recording that is under way");
  command->add_option("pid", arguments->pid, "Process id of the recorded program")->required();
  command->add_option("action", arguments->action, "status (default), start, stop or flush")
      ->check(CLI::IsMember({"status", "start", "stop", "flush"}));
  command->add_option("--format", arguments->format, "table or json")->check(CLI::IsMember({"table", "json"}));
  command->footer(
      "Examples:\n"
      "  heaptape ctl $(pidof tor) status\n"
      "  heaptape ctl 4711 flush      bring what is recorded to the file now\n"
      "  heaptape ctl 4711 stop       suspend; `start` goes on in the same file");
  command->callback([arguments, &status] { status = Run(*arguments); });
}

}  // namespace heaptape::commands
