// heaptape lab: a private Tor network on loopback, relays of it recorded and compared.

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "allocators/catalog.h"
#include "allocators/store.h"
#include "nlohmann/json.hpp"
#include "replayer/commands/commands.h"
#include "replayer/commands/interrupt.h"
#include "replayer/commands/lab.h"
#include "replayer/commands/output.h"
#include "replayer/commands/talk.h"
#include "replayer/export/external_text.h"
#include "traces/lab/guard.h"
#include "traces/lab/load.h"
#include "traces/lab/network.h"
#include "traces/output_file.h"

namespace heaptape::commands {
using Clock = std::chrono::steady_clock;
using lab::NetworkOptions;
using lab::NetworkState;

namespace {

lab::Progress TellProgress(Teller& teller) {
  return [&teller](double share, const std::string& what) {
    teller.Say(absl::StrCat("network: ", what), static_cast<std::uint64_t>(share * 100), 100, "%");
  };
}

}  // namespace

void CatchLabInterrupts() {
  StopOnInterrupt(SecondInterrupt::kChangesNothing);
  signal(SIGPIPE, SIG_IGN);
}

void Teller::Say(const std::string& what, std::uint64_t done, std::uint64_t total, const std::string& unit) {
  if (what != what_) {
    End();
    what_ = what;
    bar_ = board_.Add(what, total, unit);
    if (TerminalWidth(STDERR_FILENO) == 0) TellLine(what);
  }
  board_.Update(bar_, done);
}

void Teller::End() {
  if (bar_ >= 0) board_.Remove(bar_);
  bar_ = -1;
  what_.clear();
}

NetworkFlags::NetworkFlags() {
  options.directory = "heaptape-lab";
  options.cache_folder = absl::StrCat(DefaultCacheFolder(), "/lab");
}

void NetworkFlags::AddDirectory(CLI::App& command) {
  command.add_option("--dir", options.directory, "Folder of the network; one network each")->capture_default_str();
}

void NetworkFlags::Add(CLI::App& command) {
  command.add_option("--relays", options.relay_count, "Synthetic relays in the consensus; the public network has some 8000")
      ->check(CLI::Range(0, 20000))->capture_default_str();
  command.add_option("--interval", options.voting_interval_seconds, "Seconds from one consensus to the next; 120 for 8000 relays")
      ->capture_default_str();
  command.add_option("--churn", options.churn, "Change from one consensus to the next, times that of the public network")
      ->check(CLI::Range(0.0, 10.0))->capture_default_str();
  command.add_option("--clients", options.client_count, "Tor clients")->check(CLI::Range(0, 50))->capture_default_str();
}

void LoadFlags::Add(CLI::App& command) {
  command.add_option("--streams", options.streams, "Streams open at a time through circuits")->check(CLI::Range(0, 1000))->capture_default_str();
  command.add_option("--connections", options.connections, "Clients' connections held to each relay under test, with a circuit each")
      ->check(CLI::Range(0, 5000))->capture_default_str();
  command.add_option("--requests", options.directory_requests_per_second, "Directory requests a second to each relay under test")
      ->check(CLI::Range(0.0, 1000.0))->capture_default_str();
}

void GuardFlags::Add(CLI::App& command) {
  command.add_option("--cpus", options.cpus, "NumCPUs of the relay: its worker threads")->check(CLI::Range(1, 128))->capture_default_str();
  command.add_option("--torrc", options.torrc, "A line for the relay's torrc, as \"DirCache 0\"; may be repeated")->allow_extra_args(false);
}

absl::StatusOr<BorrowedNetwork> BorrowedNetwork::Get(const NetworkOptions& options, Teller& teller) {
  BorrowedNetwork result;
  if (const absl::StatusOr<NetworkState> state = lab::ReadState(options.directory); state.ok() && state->ready) {
    result.state_ = *state;
    return result;
  }
  absl::StatusOr<std::unique_ptr<lab::Network>> own = lab::Network::Up(options, TellProgress(teller), Interrupted());
  if (!own.ok()) return own.status();
  result.own_ = *std::move(own);
  result.state_ = result.own_->state();
  return result;
}

absl::Status EndRelays(const std::vector<std::unique_ptr<lab::Guard>>& relays, Teller& teller) {
  teller.Say(relays.size() == 1 ? "relay: ending" : "relays: ending", 0, 0, "");
  std::vector<int> killed;
  for (const auto& relay : relays) {
    if (absl::Status status = relay->Stop(); !status.ok()) return status;
    if (relay->was_killed()) killed.push_back(relay->place());
  }
  teller.End();
  for (const int place : killed) {
    Tell(absl::StrCat("the relay at place ", place, " did not end when it was told to and was killed; what was recorded is whole"));
  }
  return absl::OkStatus();
}

std::vector<std::string> RecordingPrefix(const std::string& tape, const std::string& time_resolution, bool force) {
  std::vector<std::string> prefix = {std::filesystem::read_symlink("/proc/self/exe").string(), "record", "--time-resolution", time_resolution,
                                     "-o", std::filesystem::absolute(tape).string()};
  if (force) prefix.emplace_back("--force");
  prefix.emplace_back("--");
  return prefix;
}

void UseAllocator(const ResolvedAllocator& allocator, lab::GuardOptions& guard) {
  guard.environment = allocator.environment;
  if (!allocator.library_path.empty()) guard.environment.emplace_back("LD_PRELOAD", allocator.library_path);
  if (allocator.loader_path.empty()) return;
  for (const std::string& word : {allocator.loader_path, std::string("--library-path"), allocator.loader_library_path}) {
    guard.prefix.push_back(word);
  }
}

absl::StatusOr<LoadedRun> RunUnderLoad(const NetworkState& network, const std::vector<std::unique_ptr<lab::Guard>>& relays,
                                       const lab::LoadOptions& load, double seconds, Teller& teller, std::chrono::milliseconds tick,
                                       const std::function<void()>& each_tick) {
  LoadedRun run;
  const auto start = Clock::now();
  const auto gone = [start] { return std::chrono::duration<double>(Clock::now() - start).count(); };
  double load_start = 0, next_check = 0;
  const std::string many = relays.size() == 1 ? "relay" : absl::StrCat(relays.size(), " relays");
  for (auto next = start + tick; gone() < seconds && !Interrupted(); next += tick) {
    if (each_tick) each_tick();
    for (const auto& relay : relays) {
      if (relay->Ended()) return absl::InternalError(absl::StrCat("a relay ended; see ", network.GuardDirectory(relay->place()), "/log"));
    }
    // Asking whether it serves costs a relay a request: once a second.
    if (!run.load && gone() >= next_check) {
      next_check = gone() + 1;
      if (std::all_of(relays.begin(), relays.end(), [](const auto& relay) { return relay->Serving(); })) {
        std::vector<lab::RelayPorts> ports;
        ports.reserve(relays.size());
        for (const auto& relay : relays) ports.push_back(relay->ports());
        run.load = lab::Load::Start(network, ports, load);
        load_start = gone();
      }
    }
    teller.Say(absl::StrCat(many, run.load ? ": under load" : ": starting"), static_cast<std::uint64_t>(gone()), static_cast<std::uint64_t>(seconds), "s");
    std::this_thread::sleep_until(next);
  }
  if (!run.load) {
    if (Interrupted()) return absl::CancelledError("interrupted");
    return absl::DeadlineExceededError("not all relays stood in the consensus in this time; give it more --minutes");
  }
  run.seconds = gone();
  run.loaded_seconds = run.seconds - load_start;
  return run;
}

absl::StatusOr<ResolvedAllocator> OneAllocator(const std::string& specification) {
  absl::StatusOr<std::vector<ResolvedAllocator>> found = ResolveAllocators(specification);
  if (!found.ok()) return found.status();
  if (found->size() != 1) return absl::InvalidArgumentError(absl::StrCat(specification, ": names ", found->size(), " allocators; name one"));
  return found->front();
}

void PrintCounts(const lab::LoadCounts& counts) {
  std::string encodings;
  for (const auto& [name, count] : counts.encodings) absl::StrAppend(&encodings, encodings.empty() ? "" : ", ", name, " ", count);
  TellLine(absl::StrFormat("streams: %d (%.1f MB), %d failed; directory requests: %d (%.1f MB; %s), %d diffs, %d failed; connections: %d, %d of them open",
                           counts.streams, static_cast<double>(counts.stream_bytes) / 1e6, counts.streams_failed, counts.directory_requests,
                           static_cast<double>(counts.directory_bytes) / 1e6, encodings, counts.diffs, counts.directory_failed, counts.connections,
                           counts.connections_open));
}

namespace {

// Brings a network up if need be, runs one relay in it, recorded into `tape`.
absl::Status RecordGuard(const NetworkFlags& network_flags, const LoadFlags& load_flags, const GuardFlags& guard_flags, double seconds,
                         const std::string& tape, bool force, Teller& teller) {
  const absl::StatusOr<ResolvedAllocator> allocator = OneAllocator(guard_flags.allocator);
  if (!allocator.ok()) return allocator.status();
  const absl::StatusOr<BorrowedNetwork> network = BorrowedNetwork::Get(network_flags.options, teller);
  if (!network.ok()) return network.status();
  lab::GuardOptions options = guard_flags.options;
  if (guard_flags.quiet && options.place < lab::kFirstQuietPlace) options.place += lab::kFirstQuietPlace - 1;
  if (options.place > lab::kGuardPlaces) return absl::InvalidArgumentError(absl::StrCat("--without-clients leaves places 1 to ", lab::kGuardPlaces - lab::kFirstQuietPlace + 1, "; give one of them"));
  if (!tape.empty()) options.prefix = RecordingPrefix(tape, guard_flags.time_resolution, force);
  UseAllocator(*allocator, options);
  absl::StatusOr<std::unique_ptr<lab::Guard>> guard = lab::Guard::Start(network->state(), options);
  if (!guard.ok()) return guard.status();
  std::vector<std::unique_ptr<lab::Guard>> guards;
  guards.push_back(*std::move(guard));
  LoadFlags load = load_flags;
  if (guard_flags.quiet) load.options = {.streams = 0, .directory_requests_per_second = 0, .connections = 0};
  absl::StatusOr<LoadedRun> run = RunUnderLoad(network->state(), guards, load.options, seconds, teller, std::chrono::milliseconds(200));
  if (!run.ok()) return run.status();
  if (Interrupted()) return absl::CancelledError("interrupted");
  const lab::LoadCounts counts = run->load->counts();
  run->load.reset();
  const absl::StatusOr<lab::GuardMemory> memory = guards[0]->ReadMemory();
  if (absl::Status status = EndRelays(guards, teller); !status.ok()) return status;
  if (memory.ok()) {
    TellLine(absl::StrFormat("relay under %s: %.1f MiB anonymous at the end, %.1f MiB peak", allocator->DisplayName(),
                             static_cast<double>(memory->anonymous_bytes) / 1048576,
                             static_cast<double>(memory->peak_bytes - memory->file_bytes) / 1048576));
  }
  PrintCounts(counts);
  return absl::OkStatus();
}

// Runs this program with other arguments, on the same terminal. Its exit status.
int RunSelf(const std::vector<std::string>& arguments) {
  const std::string program = std::filesystem::read_symlink("/proc/self/exe").string();
  std::vector<char*> words = {const_cast<char*>(program.c_str())};
  for (const std::string& argument : arguments) words.push_back(const_cast<char*>(argument.c_str()));
  words.push_back(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    for (int number : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) signal(number, SIG_DFL);
    execv(program.c_str(), words.data());
    _exit(127);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) kill(child, SIGTERM);
  return WIFEXITED(status) ? WEXITSTATUS(status) : kExitFailed;
}

void AddUp(CLI::App& lab_command, int& status) {
  auto flags = std::make_shared<NetworkFlags>();
  CLI::App* command = lab_command.add_subcommand("up", "Start a network; it stays until `heaptape lab down`");
  flags->AddDirectory(*command);
  flags->Add(*command);
  command->footer("Example:\n  heaptape lab up --relays 300");
  command->callback([flags, &status] {
    CatchLabInterrupts();
    Teller teller;
    const absl::StatusOr<std::unique_ptr<lab::Network>> network = lab::Network::Up(flags->options, TellProgress(teller), Interrupted());
    teller.End();
    if (!network.ok()) {
      status = Fail(network.status());
      return;
    }
    (*network)->Detach();
    std::string ports;
    for (int i = 1; i <= (*network)->state().options.client_count; ++i) absl::StrAppend(&ports, " ", (*network)->state().Client(i).ToString());
    TellLine(absl::StrCat("up in ", (*network)->state().options.directory, ": SOCKS ports", ports, "; take it down with: heaptape lab down --dir ",
                          flags->options.directory));
  });
}

void AddStatus(CLI::App& lab_command, int& status) {
  auto flags = std::make_shared<NetworkFlags>();
  auto format = std::make_shared<std::string>("table");
  CLI::App* command = lab_command.add_subcommand("status", "Say what is up");
  flags->AddDirectory(*command);
  command->add_option("--format", *format, "table or json")->check(CLI::IsMember({"table", "json"}))->capture_default_str();
  command->footer("Example:\n  heaptape lab status --format json");
  command->callback([flags, format, &status] {
    const absl::StatusOr<NetworkState> state = lab::ReadState(flags->options.directory);
    if (!state.ok()) {
      status = Fail(state.status());
      return;
    }
    const absl::StatusOr<lab::NetworkStatus> now = lab::QueryStatus(*state);
    if (!now.ok()) {
      status = Fail(now.status());
      return;
    }
    if (*format == "json") {
      std::cout << JsonText(nlohmann::json{{"schema_version", 1},
                                  {"directory", state->options.directory},
                                  {"ready", state->ready},
                                  {"network", absl::StrCat("127.", state->instance, ".0.0/16")},
                                  {"tor_processes", now->tor_processes},
                                  {"relays_in_consensus", now->relays_in_consensus},
                                  {"consensus_bytes", now->consensus_bytes},
                                  {"valid_after", now->valid_after},
                                  {"voting_interval_seconds", state->options.voting_interval_seconds},
                                  {"churn_rounds", state->rounds}})
                << "\n";
      return;
    }
    absl::PrintF("folder         %s\nnetwork        127.%d.0.0/16%s\ntor processes  %d\nconsensus      %d relays, %d bytes, valid after %s, every %d s\nchurn          %d rounds\n",
                 PlainText(state->options.directory), state->instance, state->ready ? "" : " (starting)", now->tor_processes, now->relays_in_consensus,
                 now->consensus_bytes, PlainText(now->valid_after), state->options.voting_interval_seconds, state->rounds);
  });
}

void AddDown(CLI::App& lab_command, int& status) {
  auto flags = std::make_shared<NetworkFlags>();
  CLI::App* command = lab_command.add_subcommand("down", "End a network and everything it started, also after a crash");
  flags->AddDirectory(*command);
  command->footer("Example:\n  heaptape lab down");
  command->callback([flags, &status] {
    const absl::StatusOr<bool> found = lab::Down(flags->options.directory);
    if (!found.ok()) {
      status = Fail(found.status());
    } else if (!*found) {
      status = Fail(absl::NotFoundError(absl::StrCat(flags->options.directory, ": no network is up there; see --dir")));
    }
  });
}

void AddLoad(CLI::App& lab_command, int& status) {
  auto flags = std::make_shared<NetworkFlags>();
  auto load_flags = std::make_shared<LoadFlags>();
  auto minutes = std::make_shared<double>(1);
  CLI::App* command = lab_command.add_subcommand("load", "Put client load on a network that is up, and on the relays under test in it");
  flags->AddDirectory(*command);
  load_flags->Add(*command);
  command->add_option("--minutes", *minutes, "How long")->check(CLI::Range(0.01, 100000.0))->capture_default_str();
  command->footer("Example:\n  heaptape lab load --streams 20 --requests 10 --minutes 5");
  command->callback([flags, load_flags, minutes, &status] {
    CatchLabInterrupts();
    const absl::StatusOr<NetworkState> state = lab::ReadState(flags->options.directory);
    if (!state.ok()) {
      status = Fail(state.status());
      return;
    }
    std::vector<lab::RelayPorts> relays;
    for (int place = 1; place <= lab::kGuardPlaces; ++place) {
      const lab::RelayPorts relay = state->GuardPorts(place);
      if (lab::Ask(relay.directory, lab::GetRequest("/tor/keys/all"), 5000).ok()) relays.push_back(relay);
    }
    if (relays.empty()) relays.push_back(state->SpareRelay());
    Teller teller;
    const std::unique_ptr<lab::Load> load = lab::Load::Start(*state, relays, load_flags->options);
    const auto start = Clock::now();
    for (double gone = 0; gone < *minutes * 60 && !Interrupted(); gone = std::chrono::duration<double>(Clock::now() - start).count()) {
      teller.Say(absl::StrCat("load on ", relays.size(), " relays"), static_cast<std::uint64_t>(gone), static_cast<std::uint64_t>(*minutes * 60), "s");
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
    }
    teller.End();
    PrintCounts(load->counts());
  });
}

void AddLabRecord(CLI::App& lab_command, int& status) {
  auto network = std::make_shared<NetworkFlags>();
  auto load = std::make_shared<LoadFlags>();
  auto guard = std::make_shared<GuardFlags>();
  auto minutes = std::make_shared<double>(2);
  auto output = std::make_shared<std::string>();
  auto force = std::make_shared<bool>(false);
  CLI::App* command = lab_command.add_subcommand("record", "Record a directory-caching guard relay from its start on");
  network->AddDirectory(*command);
  network->Add(*command);
  load->Add(*command);
  guard->Add(*command);
  command->add_option("--allocator", guard->allocator, "What the relay runs under, as for `heaptape replay`")->capture_default_str();
  command->add_flag("--without-clients", guard->quiet, "No client comes to the relay: directory churn only");
  command->add_option("--place", guard->options.place, "Where in the network, for several relays at a time")->check(CLI::Range(1, lab::kGuardPlaces))
      ->capture_default_str();
  command->add_option("--minutes", *minutes, "How long, from the relay's start on")->check(CLI::Range(0.1, 100000.0))->capture_default_str();
  command->add_option("--time-resolution", guard->time_resolution, "As for `heaptape record`")->capture_default_str();
  command->add_option("-o,--output", *output, "The trace")->required();
  AddForceOption(*command, *force);
  command->footer(
      "Uses the network that is up in --dir, or starts one for the time of the recording.\n"
      "Example:\n  heaptape lab record --relays 8000 --interval 120 --minutes 40 --cpus 4 -o guard.tape");
  command->callback([network, load, guard, minutes, output, force, &status] {
    CatchLabInterrupts();
    Teller teller;
    absl::Status outcome = CheckOutput(*output, *force);
    if (outcome.ok()) outcome = RecordGuard(*network, *load, *guard, *minutes * 60, *output, *force, teller);
    teller.End();
    if (!outcome.ok()) status = Fail(outcome);
  });
}

void AddDemo(CLI::App& lab_command, int& status) {
  auto output = std::make_shared<std::string>("demo");
  auto seconds = std::make_shared<double>(90);
  auto network_flags = std::make_shared<NetworkFlags>();
  CLI::App* command = lab_command.add_subcommand("demo", "Record a guard in a small network, replay it on every allocator, show the report");
  command->add_option("--output", *output, "Folder for the trace and the report")->capture_default_str();
  command->add_option("--seconds", *seconds, "How long to record")->check(CLI::Range(10.0, 100000.0))->capture_default_str();
  auto force = std::make_shared<bool>(false);
  AddForceOption(*command, *force);
  network_flags->Add(*command);
  command->footer("Example:\n  heaptape lab demo --output build/demo");
  command->callback([output, seconds, force, network_flags, &status] {
    CatchLabInterrupts();
    std::error_code error;
    std::filesystem::create_directories(*output, error);
    if (error) {
      status = Fail(absl::FailedPreconditionError(absl::StrCat(*output, ": cannot create: ", error.message(), "; choose another --output")));
      return;
    }
    NetworkFlags network = *network_flags;
    network.options.directory = *output + "/network";
    const std::string tape = *output + "/guard.tape", results = *output + "/results.json", report = *output + "/report.html";
    Teller teller;
    absl::Status outcome = CheckOutputs({tape, results, report}, *force);
    if (outcome.ok()) outcome = RecordGuard(network, LoadFlags(), GuardFlags(), *seconds, tape, *force, teller);
    teller.End();
    if (!outcome.ok()) {
      status = Fail(outcome);
      return;
    }
    std::vector<std::string> replay = {"replay", tape, "-o", results, "--report", report};
    if (*force) replay.emplace_back("--force");
    status = RunSelf(replay);
    if (status == kExitDone)
      std::printf("\nmore allocators: heaptape allocators list shows which there are, heaptape allocators add gets one; then heaptape replay %s\nreport: %s\n",
                  PlainText(tape).c_str(), PlainText(report).c_str());
  });
}

}  // namespace

void AddLab(CLI::App& program, int& status) {
  CLI::App* command = program.add_subcommand("lab", "Make real traces: a private Tor network on loopback, with a guard relay to record");
  command->require_subcommand(1);
  command->footer(
      "Examples:\n"
      "  heaptape lab demo --output demo            record a guard, replay it, report\n"
      "  heaptape lab up --relays 300               a network that stays\n"
      "  heaptape lab record --minutes 5 -o guard.tape\n"
      "  heaptape lab down");
  AddUp(*command, status);
  AddStatus(*command, status);
  AddLoad(*command, status);
  AddLabRecord(*command, status);
  AddLabCompare(*command, status);
  AddLabDays(*command, status);
  AddLabRelay(*command, status);
  AddDown(*command, status);
  AddDemo(*command, status);
}

}  // namespace heaptape::commands
