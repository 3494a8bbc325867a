// heaptape lab relay: relays side by side in one network under one load, and what each cost.

#include <chrono>
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "nlohmann/json.hpp"
#include "replayer/commands/commands.h"
#include "replayer/commands/interrupt.h"
#include "replayer/commands/lab.h"
#include "replayer/export/external_text.h"
#include "replayer/export/format.h"

namespace heaptape::commands {
namespace {

struct RelayFlags {
  NetworkFlags network;
  LoadFlags load;
  GuardFlags guard;
  std::vector<std::string> relays;
  double minutes = 1;
  std::string format = "table";
};

struct Relay {
  std::string name;
  std::uint64_t cpu_ns = 0;
  lab::GuardMemory memory;
};

// "NAME" or "NAME=COMMAND...": the command stands before tor's own.
absl::StatusOr<std::unique_ptr<lab::Guard>> StartRelay(const lab::NetworkState& network, lab::GuardOptions options, const std::string& text,
                                                       std::string& name) {
  name = text.substr(0, text.find('='));
  if (name.size() < text.size()) {
    for (const auto word : absl::StrSplit(text.substr(name.size() + 1), ' ', absl::SkipEmpty())) options.prefix.emplace_back(word);
  }
  return lab::Guard::Start(network, options);
}

// All start together, are loaded from the moment on in which all serve, and are measured at the same moment.
absl::Status RunRelays(const RelayFlags& flags, const lab::NetworkState& network, Teller& teller, std::vector<Relay>& relays,
                       double& loaded_seconds) {
  std::vector<std::unique_ptr<lab::Guard>> guards;
  for (const std::string& text : flags.relays) {
    lab::GuardOptions options = flags.guard.options;
    options.place = static_cast<int>(guards.size()) + 1;
    absl::StatusOr<std::unique_ptr<lab::Guard>> guard = StartRelay(network, options, text, relays.emplace_back().name);
    if (!guard.ok()) return guard.status();
    guards.push_back(*std::move(guard));
  }
  absl::StatusOr<LoadedRun> run =
      RunUnderLoad(network, guards, flags.load.options, flags.minutes * 60, teller, std::chrono::milliseconds(200));
  if (!run.ok()) return run.status();
  if (Interrupted()) return absl::CancelledError("interrupted");
  loaded_seconds = run->loaded_seconds;
  for (std::size_t i = 0; i < relays.size(); ++i) {
    const absl::StatusOr<lab::GuardMemory> memory = guards[i]->ReadMemory();
    const absl::StatusOr<std::uint64_t> cpu_ns = guards[i]->ReadCpuNs();
    if (!memory.ok()) return memory.status();
    if (!cpu_ns.ok()) return cpu_ns.status();
    relays[i].memory = *memory;
    relays[i].cpu_ns = *cpu_ns;
  }
  run->load.reset();
  return EndRelays(guards, teller);
}

void Print(const std::vector<Relay>& relays, double loaded_seconds, const std::string& format) {
  if (format == "json") {
    nlohmann::json list = nlohmann::json::array();
    for (const Relay& relay : relays) {
      list.push_back({{"name", relay.name}, {"cpu_ns", relay.cpu_ns}, {"peak_rss_bytes", relay.memory.peak_bytes},
                      {"anonymous_bytes", relay.memory.anonymous_bytes}});
    }
    std::cout << JsonText(nlohmann::json{{"schema_version", 1}, {"loaded_seconds", loaded_seconds}, {"relays", list}}) << "\n";
    return;
  }
  for (const Relay& relay : relays) {
    absl::PrintF("%-12s %8.2f s of CPU, peak RSS %s\n", PlainText(relay.name), static_cast<double>(relay.cpu_ns) / 1e9,
                 FormatBytes(static_cast<double>(relay.memory.peak_bytes)));
  }
}

}  // namespace

void AddLabRelay(CLI::App& lab_command, int& status) {
  auto flags = std::make_shared<RelayFlags>();
  CLI::App* command = lab_command.add_subcommand("relay", "Run relays side by side under the same load, and say what each cost");
  flags->network.AddDirectory(*command);
  flags->network.Add(*command);
  flags->load.Add(*command);
  flags->guard.Add(*command);
  command->add_option("--relay", flags->relays, "A relay's name, and with = what stands before its command; may be repeated")
      ->required()->allow_extra_args(false)->type_name("NAME[=COMMAND]");
  command->add_option("--minutes", flags->minutes, "How long, from the relays' start on")->check(CLI::Range(0.1, 100000.0))->capture_default_str();
  command->add_option("--format", flags->format, "table or json")->check(CLI::IsMember({"table", "json"}))->capture_default_str();
  command->footer(
      "Uses the network that is up in --dir, or starts one for the time of the run. CPU time and memory are the relays' own,\n"
      "from their start to the moment before they are told to end.\n"
      "Example:\n  heaptape lab relay --minutes 2 --relay bare --relay 'recorded=heaptape record -o guard.tape --'");
  command->callback([flags, &status] {
    CatchLabInterrupts();
    if (flags->relays.size() >= lab::kFirstQuietPlace) {
      status = Fail(absl::InvalidArgumentError(absl::StrCat("one network has places for ", lab::kFirstQuietPlace - 1, " relays with clients; run fewer at a time")));
      return;
    }
    Teller teller;
    std::vector<Relay> relays;
    double loaded_seconds = 0;
    const absl::StatusOr<BorrowedNetwork> network = BorrowedNetwork::Get(flags->network.options, teller);
    const absl::Status outcome = network.ok() ? RunRelays(*flags, network->state(), teller, relays, loaded_seconds) : network.status();
    teller.End();
    if (outcome.ok()) {
      Print(relays, loaded_seconds, flags->format);
    } else {
      status = Fail(outcome);
    }
  });
}

}  // namespace heaptape::commands
