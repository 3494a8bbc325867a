#include "traces/lab/guard.h"

#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "traces/lab/process.h"

namespace heaptape::lab {
namespace {

constexpr int kStopPatienceSeconds = 30;
constexpr int kWritePatienceSeconds = 60;  // a recorder may have much to write yet

}  // namespace

absl::StatusOr<std::unique_ptr<Guard>> Guard::Start(const NetworkState& network, const GuardOptions& options) {
  if (options.place < 1 || options.place > kGuardPlaces) {
    return absl::InvalidArgumentError(absl::StrCat("a lab's network has places for ", kGuardPlaces, " relays under test; name one from 1 on"));
  }
  std::unique_ptr<Guard> guard(new Guard(network, options.place));
  const std::string name = absl::StrCat("guard", options.place);
  const std::string folder = network.GuardDirectory(options.place);
  std::error_code error;
  std::filesystem::remove_all(folder, error);
  const absl::StatusOr<RelayIdentity> identity = RealRelayIdentity(name);
  if (!identity.ok()) return identity.status();
  if (absl::Status status = PrepareRelay(folder, *identity); !status.ok()) return status;

  std::string torrc;
  // Unlike the rest of the network a guard loads the GeoIP files: production relays do.
  for (std::size_t at = 0; at < network.torrc.size();) {
    const std::size_t end = network.torrc.find('\n', at) + 1;
    const std::string line = network.torrc.substr(at, end - at);
    if (line.compare(0, 5, "GeoIP") != 0) torrc += line;
    at = end;
  }
  absl::StrAppend(&torrc, "Nickname ", name, "\nDataDirectory ", folder, "\nPidFile ", folder, "/pid\nAddress ", network.GuardAddress(options.place),
                  "\nORPort ", guard->ports_.link.ToString(), "\nDirPort ", guard->ports_.directory.ToString(), "\nNumCPUs ", options.cpus,
                  "\nSocksPort 0\nExitPolicy reject *:*\n__DisablePredictedCircuits 1\nMaxConsensusAgeForDiffs 10 hours\n"
                  "__OwningControllerProcess ", getpid(), "\n");
  // An operator's own line comes instead of ours.
  const auto leave_out = [&](const std::string& option) {
    const std::size_t at = torrc.find(absl::StrCat("\n", option, " "));
    if (at != std::string::npos) torrc.erase(at + 1, torrc.find('\n', at + 1) - at);
  };
  for (const std::string& line : options.torrc) {
    leave_out(line.substr(0, line.find(' ')));
    absl::StrAppend(&torrc, line, "\n");
    if (line != "DirCache 0") continue;
    leave_out("DirPort");  // tor refuses one without the other
    guard->ports_.directory.port = 0;
  }
  std::ofstream file(folder + "/torrc");
  file << torrc;
  file.close();
  if (!file) return absl::FailedPreconditionError(absl::StrCat(folder, "/torrc: cannot write; make room there"));

  ChildOptions child = {.command = options.prefix,
                        .environment = options.environment,
                        .lab_directory = network.options.directory,
                        .log_path = folder + "/log",
                        .own_group = true};
  // By its full path: a loader that stands before it does not search PATH.
  const std::string tor = FindProgram("tor");
  if (tor.empty()) return absl::NotFoundError("tor: program not found; install it with: apt-get install tor");
  for (const std::string& word : {tor, std::string("-f"), folder + "/torrc", std::string("--defaults-torrc"), std::string("/dev/null")}) {
    child.command.push_back(word);
  }
  const absl::StatusOr<pid_t> started = StartChild(child);
  if (!started.ok()) return started.status();
  guard->child_ = *started;
  return guard;
}

Guard::~Guard() {
  if (child_ <= 0) return;
  if (const pid_t tor = TorProcess(); tor > 0) kill(tor, SIGKILL);
  kill(-child_, SIGKILL);
  kill(child_, SIGKILL);
  while (waitpid(child_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

pid_t Guard::TorProcess() const {
  std::ifstream file(network_.GuardDirectory(place_) + "/pid");
  pid_t pid = 0;
  return file >> pid && ProcessStartTime(pid) ? pid : 0;
}

bool Guard::Ended() {
  if (child_ > 0 && waitpid(child_, nullptr, WNOHANG) == child_) child_ = 0;
  return child_ == 0;
}

bool Guard::Serving() const {
  const absl::StatusOr<HttpReply> reply = Ask(ports_.directory.port ? ports_.directory : network_.Authority(1), GetRequest("/tor/status-vote/current/consensus-microdesc"), 10'000);
  return reply.ok() && reply->status == 200 && reply->body.find(absl::StrCat("\nr guard", place_, " ")) != std::string::npos;
}

absl::StatusOr<GuardMemory> Guard::ReadMemory() const {
  const pid_t tor = TorProcess();
  std::ifstream file(absl::StrCat("/proc/", tor, "/status"));
  GuardMemory memory;
  for (std::string line; tor > 0 && std::getline(file, line);) {
    const auto read = [&](const char* name, std::uint64_t& bytes) {
      const std::size_t length = std::char_traits<char>::length(name);
      if (line.compare(0, length, name) == 0) bytes = std::strtoull(line.c_str() + length, nullptr, 10) * 1024;
    };
    read("RssAnon:", memory.anonymous_bytes);
    read("RssFile:", memory.file_bytes);
    read("VmHWM:", memory.peak_bytes);
  }
  if (memory.peak_bytes == 0) return absl::NotFoundError(absl::StrCat("relay guard", place_, " is not running; see the end of its log"));
  return memory;
}

absl::StatusOr<std::uint64_t> Guard::ReadCpuNs() const {
  const pid_t tor = TorProcess();
  clockid_t clock;
  timespec time;
  if (tor <= 0 || clock_getcpuclockid(tor, &clock) != 0 || clock_gettime(clock, &time) != 0) {
    return absl::NotFoundError(absl::StrCat("relay guard", place_, " is not running; see the end of its log"));
  }
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(time.tv_nsec);
}

absl::Status Guard::Stop() {
  if (Ended()) {
    return absl::InternalError(absl::StrCat("relay guard", place_, " ended by itself; see ", network_.GuardDirectory(place_), "/log"));
  }
  // Later there may be no file any more that says which process it is: tor takes that away first.
  const pid_t relay = TorProcess();
  const std::uint64_t relay_start = ProcessStartTime(relay);
  const auto start = std::chrono::steady_clock::now();
  for (int asked = 0; !Ended();) {
    const auto waited = std::chrono::steady_clock::now() - start;
    // Asked again where the relay was too busy to hear: tor takes a second time for the first.
    if (waited >= std::chrono::seconds(10 * asked)) {
      const pid_t tor = TorProcess();
      kill(tor > 0 ? tor : child_, SIGTERM);
      ++asked;
    }
    if (!was_killed_ && waited > std::chrono::seconds(kStopPatienceSeconds) && relay > 0 && ProcessStartTime(relay) == relay_start) {
      was_killed_ = true;
      kill(relay, SIGKILL);
    }
    if (waited > std::chrono::seconds(kStopPatienceSeconds + kWritePatienceSeconds)) {
      return absl::DeadlineExceededError(absl::StrCat("relay guard", place_, " does not end; see ", network_.GuardDirectory(place_), "/log"));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  return absl::OkStatus();
}

}  // namespace heaptape::lab
