#include "traces/lab/network.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <future>
#include <iterator>
#include <thread>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "nlohmann/json.hpp"
#include "traces/lab/file_server.h"
#include "traces/lab/keys.h"
#include "traces/lab/process.h"
#include "traces/lab/publisher.h"

namespace heaptape::lab {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr int kOrPort = 5000;
constexpr int kDirectoryPort = 7000;
constexpr int kSocksPort = 9050;
constexpr int kFilePort = 8080;
constexpr int kLockPort = 4999;
// tor clients keep 127.192.0.0/10 for addresses of their own making.
constexpr int kFirstInstance = 64;
constexpr int kLastInstance = 191;
constexpr int kShutdownPatienceMs = 4000;
// Clients weigh no relay above some 2,147,483 kB/s.
constexpr std::uint32_t kRealBandwidth = 2'000'000;
constexpr std::uint32_t kSpareGuardBandwidth = 50'000;

std::string Address(int instance, int kind, int number) { return absl::StrCat("127.", instance, ".", kind, ".", number); }
RelayPorts Ports(const std::string& address) { return {.link = {address, kOrPort}, .directory = {address, kDirectoryPort}}; }
enum Kind { kServices = 0, kAuthorities = 1, kExits = 2, kRelays = 3, kGuards = 4, kClients = 5, kQuiet = 6 };

absl::Status WriteFile(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  if (!file) return absl::FailedPreconditionError(absl::StrCat(path, ": cannot write; choose another --dir"));
  return absl::OkStatus();
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

std::string StatePath(const std::string& directory) { return directory + "/lab.json"; }
std::string NodesDirectory(const std::string& directory) { return directory + "/nodes"; }

absl::Status WriteState(const NetworkState& state) {
  const NetworkOptions& options = state.options;
  const nlohmann::json json = {{"schema_version", 1},
                               {"directory", options.directory},
                               {"relay_count", options.relay_count},
                               {"voting_interval_seconds", options.voting_interval_seconds},
                               {"churn", options.churn},
                               {"authority_count", options.authority_count},
                               {"exit_count", options.exit_count},
                               {"client_count", options.client_count},
                               {"instance", state.instance},
                               {"supervisor", state.supervisor},
                               {"supervisor_start", state.supervisor_start},
                               {"ready", state.ready},
                               {"torrc", state.torrc},
                               {"rounds", state.rounds}};
  const std::string path = StatePath(options.directory), part = path + ".part";
  std::string text;
  try {
    text = json.dump(2);
  } catch (const nlohmann::json::type_error&) {
    return absl::InvalidArgumentError(absl::StrCat(options.directory, ": the name is not UTF-8; choose another --dir"));
  }
  if (absl::Status status = WriteFile(part, text); !status.ok()) return status;
  std::error_code error;
  fs::rename(part, path, error);
  return error ? absl::FailedPreconditionError(absl::StrCat(path, ": cannot write: ", error.message())) : absl::OkStatus();
}

std::string Field(const std::string& text, const std::string& name) {
  const std::size_t at = text.find(name);
  if (at == std::string::npos) return "";
  const std::size_t start = at + name.size();
  return text.substr(start, text.find_first_of(" \r\n", start) - start);
}

int CountRelays(const std::string& consensus) {
  int count = 0;
  for (std::size_t at = 0; (at = consensus.find("\nr ", at)) != std::string::npos; ++at) ++count;
  return count;
}

// What a network left beside its state, and its folder where nothing else is in it.
void RemoveFiles(const std::string& directory) {
  std::error_code error;
  fs::remove_all(NodesDirectory(directory), error);
  fs::remove(directory + "/lab.log", error);
  fs::remove(directory, error);
}

// Runs in the process forked by Network::Up and ends with it.
class Supervisor {
 public:
  Supervisor(const NetworkOptions& options, int leash, int reports) : leash_(leash), reports_(reports) {
    state_.options = options;
  }

  [[noreturn]] void Run() {
    setsid();
    sigset_t handled;
    sigemptyset(&handled);
    for (int number : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&handled, number);
    sigprocmask(SIG_BLOCK, &handled, nullptr);
    signals_ = signalfd(-1, &handled, SFD_NONBLOCK | SFD_CLOEXEC);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    // What a recorded program leaves behind when its parent dies comes to us and is reaped.
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(null, 0);
    dup2(null, 1);
    dup2(null, 2);

    const absl::Status status = Build();
    if (!status.ok()) {
      Report(absl::StrCat("E", static_cast<int>(status.code()), " ", std::string(status.message())));
    } else {
      Report("R");
      Keep();
    }
    if (churning_.valid()) churning_.wait();
    server_.reset();
    StopChildren(children_, kShutdownPatienceMs);
    KillRemaining(state_.options.directory, kShutdownPatienceMs);
    std::error_code error;
    fs::remove(StatePath(state_.options.directory), error);
    // After a failure its message names logs that have to be there.
    if (status.ok()) RemoveFiles(state_.options.directory);
    _exit(status.ok() ? 0 : 1);
  }

 private:
  void Report(const std::string& line) {
    const std::string text = line + "\n";
    if (write(reports_, text.data(), text.size()) < 0) { /* nobody waits any more */
    }
  }
  void Report(double share, const std::string& what) { Report(absl::StrCat("P", share, " ", what)); }

  // Sleeps and keeps watch: an error means that it is time to go.
  absl::Status Watch(int milliseconds) {
    pollfd waited[2] = {{signals_, POLLIN, 0}, {detached_ ? -1 : leash_, POLLIN, 0}};
    poll(waited, 2, milliseconds);
    if (waited[0].revents) return absl::CancelledError("stopped");
    if (waited[1].revents) {
      char command = 0;
      const ssize_t count = read(leash_, &command, 1);
      if (count != 1) return absl::CancelledError("stopped");
      if (command == 'd') detached_ = true;
    }
    while (true) {
      const pid_t gone = waitpid(-1, nullptr, WNOHANG);
      if (gone <= 0) break;
      for (std::size_t i = 0; i < children_.size(); ++i) {
        if (children_[i] != gone) continue;
        const std::string name = names_[i];
        children_.erase(children_.begin() + static_cast<std::ptrdiff_t>(i));
        names_.erase(names_.begin() + static_cast<std::ptrdiff_t>(i));
        return absl::InternalError(absl::StrCat("tor process ", name, " ended; see ", NodesDirectory(state_.options.directory), "/", name, "/log"));
      }
    }
    return absl::OkStatus();
  }

  absl::Status WaitUntil(const std::function<bool()>& reached, int patience_seconds, const std::string& what) {
    const auto deadline = Clock::now() + std::chrono::seconds(patience_seconds);
    while (!reached()) {
      if (Clock::now() > deadline) {
        return absl::DeadlineExceededError(absl::StrCat("the lab's network did not come up in time (", what, "); see the logs in ",
                                                        NodesDirectory(state_.options.directory)));
      }
      if (absl::Status status = Watch(250); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

  // Runs `work` on another thread while this one keeps watch.
  absl::Status InBackground(const std::function<absl::Status()>& work) {
    std::future<absl::Status> done = std::async(std::launch::async, work);
    while (done.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
      if (absl::Status status = Watch(100); !status.ok()) {
        done.wait();
        return status;
      }
    }
    return done.get();
  }

  absl::Status TakeInstance() {
    const int first = kFirstInstance + static_cast<int>(getpid() % (kLastInstance - kFirstInstance + 1));
    for (int i = 0; i <= kLastInstance - kFirstInstance; ++i) {
      const int instance = kFirstInstance + (first - kFirstInstance + i) % (kLastInstance - kFirstInstance + 1);
      // A bound socket is the lock: it goes with the process, for every user of the machine.
      const int lock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      const sockaddr_in address = Endpoint{Address(instance, kServices, 1), kLockPort}.Socket();
      if (bind(lock, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 && listen(lock, 1) == 0) {
        state_.instance = instance;
        return absl::OkStatus();
      }
      close(lock);
    }
    return absl::ResourceExhaustedError("no free loopback network: too many labs are up; take one down (heaptape lab down)");
  }

  std::string NodeDirectory(const std::string& name) const { return NodesDirectory(state_.options.directory) + "/" + name; }

  absl::Status StartTor(const std::string& name, const std::string& address, const std::string& lines) {
    const std::string folder = NodeDirectory(name);
    fs::create_directories(folder);
    chmod(folder.c_str(), 0700);
    if (absl::Status status = WriteFile(folder + "/torrc", absl::StrCat(state_.torrc, "DataDirectory ", folder, "\nAddress ", address,
                                                                       "\n", lines));
        !status.ok()) {
      return status;
    }
    const absl::StatusOr<pid_t> child = StartChild({.command = {"tor", "-f", folder + "/torrc", "--defaults-torrc", "/dev/null"},
                                                    .lab_directory = state_.options.directory,
                                                    .log_path = folder + "/log"});
    if (!child.ok()) return child.status();
    children_.push_back(*child);
    names_.push_back(name);
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> AddRelay(const std::string& name, std::uint32_t bandwidth) {
    const absl::StatusOr<RelayIdentity> identity = RealRelayIdentity(name);
    if (!identity.ok()) return identity.status();
    if (absl::Status status = PrepareRelay(NodeDirectory(name), *identity); !status.ok()) return status;
    bandwidths_.emplace_back(identity->fingerprint, bandwidth);
    return identity->fingerprint;
  }

  absl::Status Build() {
    const NetworkOptions& options = state_.options;
    state_.supervisor = getpid();
    state_.supervisor_start = ProcessStartTime(getpid());
    Report(0, "keys");
    if (absl::Status status = TakeInstance(); !status.ok()) return status;
    std::error_code error;
    fs::remove_all(NodesDirectory(options.directory), error);
    fs::create_directories(NodesDirectory(options.directory), error);
    if (error) return absl::FailedPreconditionError(absl::StrCat(options.directory, ": cannot create: ", error.message()));
    chmod(NodesDirectory(options.directory).c_str(), 0700);
    if (absl::Status status = WriteState(state_); !status.ok()) return status;
    const absl::StatusOr<std::string> version = TorVersion();
    if (!version.ok()) return version.status();

    absl::StatusOr<std::unique_ptr<FileServer>> server = FileServer::Start(state_.FileServerEndpoint());
    if (!server.ok()) return server.status();
    server_ = *std::move(server);

    if (absl::Status status = MakeAuthorities(); !status.ok()) return status;
    for (int i = 1; i <= options.exit_count; ++i) {
      if (auto made = AddRelay(absl::StrCat("exit", i), kRealBandwidth); !made.ok()) return made.status();
    }
    // One for clients to begin at while no relay is under test, one for the middle of their ways.
    if (auto made = AddRelay("relay1", kSpareGuardBandwidth); !made.ok()) return made.status();
    if (auto made = AddRelay("relay2", kRealBandwidth); !made.ok()) return made.status();
    for (int place = 1; place <= kGuardPlaces; ++place) {
      const absl::StatusOr<RelayIdentity> identity = RealRelayIdentity(absl::StrCat("guard", place));
      if (!identity.ok()) return identity.status();
      bandwidths_.emplace_back(identity->fingerprint, place < kFirstQuietPlace ? kRealBandwidth : 1);
    }

    PublisherOptions publishing;
    publishing.relay_count = static_cast<std::size_t>(options.relay_count);
    for (int i = 1; i <= options.authority_count; ++i) publishing.authorities.push_back(state_.Authority(i));
    publishing.tor_version = *version;
    publishing.bandwidth_path = NodesDirectory(options.directory) + "/bandwidths";
    publishing.real_bandwidths = bandwidths_;
    publishing.cache_folder = options.cache_folder;
    publishing.churn = options.churn;
    const absl::Status prepared = InBackground([&] {
      absl::StatusOr<Publisher> publisher = Publisher::Make(publishing, [&](std::size_t done, std::size_t total) {
        Report(0.3 * static_cast<double>(done) / static_cast<double>(total), absl::StrCat("keys of ", total, " relays, kept for later runs"));
      });
      if (!publisher.ok()) return publisher.status();
      publisher_ = std::make_unique<Publisher>(*std::move(publisher));
      return publisher_->WriteBandwidths();
    });
    if (!prepared.ok()) return prepared;

    // Authorities vote at fixed times of the clock: begin when there is time left to publish before.
    const int initial = InitialInterval();
    const int vote_at = initial - 2 * VoteDelay(initial);
    if (absl::Status status = WaitUntil(
            [&] {
              const int into = static_cast<int>(std::time(nullptr) % initial);
              return into >= vote_at || into < vote_at - initial / 2;
            },
            initial, "voting time");
        !status.ok()) {
      return status;
    }
    Report(0.3, "directory authorities");
    const std::string voting = absl::StrCat(
        "V3AuthVotingInterval ", options.voting_interval_seconds, " seconds\nV3AuthVoteDelay ", VoteDelay(options.voting_interval_seconds),
        " seconds\nV3AuthDistDelay ", VoteDelay(options.voting_interval_seconds), " seconds\nTestingV3AuthInitialVotingInterval ", initial,
        " seconds\nTestingV3AuthInitialVoteDelay ", VoteDelay(initial), " seconds\nTestingV3AuthInitialDistDelay ", VoteDelay(initial),
        " seconds\nV3BandwidthsFile ", publishing.bandwidth_path, "\n");
    for (int i = 1; i <= options.authority_count; ++i) {
      const std::string address = state_.Authority(i).address;
      const std::string lines = absl::StrCat(
          "Nickname authority", i, "\nORPort ", address, ":", kOrPort, "\nDirPort ", address, ":", kDirectoryPort,
          "\nAuthoritativeDirectory 1\nV3AuthoritativeDirectory 1\nContactInfo lab\nExitPolicy reject *:*\n"
          "AuthDirTestReachability 0\nAuthDirMaxServersPerAddr 0\nAuthDirSharedRandomness 0\n"
          "TestingAuthDirTimeToLearnReachability 0\nSocksPort 0\n__DisablePredictedCircuits 1\n"
          "TestingDirAuthVoteGuard 127.", state_.instance, ".", static_cast<int>(kGuards), ".0/24,", Address(state_.instance, kRelays, 1),
          "\nTestingDirAuthVoteGuardIsStrict 1\nTestingDirAuthVoteExit 127.", state_.instance, ".", static_cast<int>(kExits),
          ".0/24\nTestingDirAuthVoteExitIsStrict 1\n", voting);
      if (absl::Status status = StartTor(absl::StrCat("authority", i), address, lines); !status.ok()) return status;
    }
    if (absl::Status status = WaitUntil(
            [&] {
              for (int i = 1; i <= options.authority_count; ++i) {
                if (!Ask(state_.Authority(i), GetRequest("/tor/server/authority"), 2000).ok()) return false;
              }
              return true;
            },
            60, "authorities");
        !status.ok()) {
      return status;
    }
    for (int i = 1; i <= options.exit_count; ++i) {
      const std::string name = absl::StrCat("exit", i), address = Address(state_.instance, kExits, i);
      if (absl::Status status = StartRelay(name, address, absl::StrCat("ExitRelay 1\nExitPolicyRejectPrivate 0\nServerDNSAllowBrokenConfig 1\n"
                                                                      "ExitPolicy accept *:", kFilePort, "\nExitPolicy reject *:*\n"));
          !status.ok()) {
        return status;
      }
    }
    for (int i = 1; i <= 2; ++i) {
      const std::string address = Address(state_.instance, kRelays, i);
      if (absl::Status status = StartRelay(absl::StrCat("relay", i), address, absl::StrCat("DirPort ", address, ":", kDirectoryPort, "\nExitPolicy reject *:*\n"));
          !status.ok()) {
        return status;
      }
    }
    if (absl::Status status = InBackground([&] {
          return publisher_->PublishAll([&](std::size_t done, std::size_t total) {
            Report(0.3 + 0.1 * static_cast<double>(done) / static_cast<double>(total), absl::StrCat("descriptors of ", total, " relays"));
          });
        });
        !status.ok()) {
      return status;
    }

    Report(0.4, "first consensus");
    const int patience = 4 * (initial + options.voting_interval_seconds) + 60;
    if (absl::Status status = WaitUntil(
            [&] {
              const absl::StatusOr<HttpReply> reply = Ask(state_.Authority(1), GetRequest("/tor/status-vote/current/consensus-microdesc"), 10'000);
              if (!reply.ok() || reply->status != 200) return false;
              return CountRelays(reply->body) >= options.relay_count * 95 / 100 && reply->body.find("\nr exit1 ") != std::string::npos &&
                     reply->body.find("\nr relay1 ") != std::string::npos && reply->body.find("\nr relay2 ") != std::string::npos;
            },
            patience, "first consensus");
        !status.ok()) {
      return status;
    }
    Report(0.7, "clients");
    for (int i = 1; i <= options.client_count; ++i) {
      const Endpoint socks = state_.Client(i);
      if (absl::Status status = StartTor(absl::StrCat("client", i), socks.address,
                                         absl::StrCat("SocksPort ", socks.ToString(), " IsolateSOCKSAuth\nClientOnly 1\nUseEntryGuards 0\n"
                                                      "LearnCircuitBuildTimeout 0\nCircuitBuildTimeout 20\nMaxCircuitDirtiness 60\n"));
          !status.ok()) {
        return status;
      }
    }
    for (int i = 1; i <= options.client_count; ++i) {
      if (absl::Status status = WaitUntil(
              [&] { return Ask(Route{state_.FileServerEndpoint(), state_.Client(i), "up"}, GetRequest("/1000"), 10'000).ok(); },
              patience, absl::StrCat("client", i));
          !status.ok()) {
        return status;
      }
      Report(0.7 + 0.3 * i / options.client_count, "clients");
    }
    state_.ready = true;
    return WriteState(state_);
  }

  int InitialInterval() const {
    // Has to divide half an hour; half of the later interval does, for those that make sense.
    for (int initial : {60, 30, 20, 10}) {
      if (initial * 2 <= state_.options.voting_interval_seconds) return initial;
    }
    return 5;
  }
  // Of voting and of distribution each: both together must be less than half of the interval.
  static int VoteDelay(int interval) { return std::max(2, interval / 5); }

  absl::Status StartRelay(const std::string& name, const std::string& address, const std::string& lines) {
    return StartTor(name, address, absl::StrCat("Nickname ", name, "\nORPort ", address, ":", kOrPort, "\nDirCache 1\nSocksPort 0\n__DisablePredictedCircuits 1\n", lines));
  }

  absl::Status MakeAuthorities() {
    const NetworkOptions& options = state_.options;
    std::string lines;
    std::vector<std::future<absl::Status>> made;
    std::vector<std::string> fingerprints;
    for (int i = 1; i <= options.authority_count; ++i) {
      const std::string name = absl::StrCat("authority", i);
      const absl::StatusOr<std::string> fingerprint = AddRelay(name, 1);
      if (!fingerprint.ok()) return fingerprint.status();
      fingerprints.push_back(*fingerprint);
      const std::string keys = NodeDirectory(name) + "/keys";
      const ChildOptions gencert = {
          .command = {"tor-gencert", "--create-identity-key", "-m", "12", "-a", absl::StrCat(state_.Authority(i).address, ":", kDirectoryPort), "-i",
                      keys + "/authority_identity_key", "-s", keys + "/authority_signing_key", "-c",
                      keys + "/authority_certificate", "--passphrase-fd", "0"},
          .lab_directory = options.directory,
          .log_path = NodeDirectory(name) + "/gencert.log"};
      made.push_back(std::async(std::launch::async, [gencert] { return RunToEnd(gencert, "lab\n"); }));
    }
    for (std::future<absl::Status>& one : made) {
      if (absl::Status status = one.get(); !status.ok()) return status;
    }
    for (int i = 1; i <= options.authority_count; ++i) {
      const std::string certificate = ReadFile(NodeDirectory(absl::StrCat("authority", i)) + "/keys/authority_certificate");
      absl::StrAppend(&lines, "DirAuthority authority", i, " orport=", kOrPort, " no-v2 v3ident=", Field(certificate, "fingerprint "), " ",
                      state_.Authority(i).ToString(), " ", fingerprints[static_cast<std::size_t>(i - 1)], "\n");
    }
    state_.torrc = absl::StrCat(
        "TestingTorNetwork 1\nTestingEnableCellStatsEvent 0\nAssumeReachable 1\nPathsNeededToBuildCircuits 0.25\n"
        "ShutdownWaitLength 0\nRunAsDaemon 0\nLog notice stdout\nGeoIPFile /dev/null\nGeoIPv6File /dev/null\n",
        lines);
    return absl::OkStatus();
  }

  void Keep() {
    // Half a round after each consensus the synthetic relays publish what the next one will say.
    const int interval = state_.options.voting_interval_seconds;
    std::int64_t last_round = std::time(nullptr) / interval;
    while (true) {
      if (!Watch(250).ok()) return;
      const bool idle = !churning_.valid() || churning_.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
      const std::int64_t now = std::time(nullptr);
      if (!idle || now / interval == last_round || now % interval < interval / 5) continue;
      last_round = now / interval;
      churning_ = std::async(std::launch::async, [this] {
        const absl::StatusOr<std::size_t> posted = publisher_->Churn();
        std::ofstream log(state_.options.directory + "/lab.log", std::ios::app);
        log << std::time(nullptr) << (posted.ok() ? absl::StrCat(" churn: ", *posted, " descriptors") : posted.status().ToString()) << "\n";
      });
      ++state_.rounds;
      WriteState(state_).IgnoreError();
    }
  }

  NetworkState state_;
  int leash_, reports_, signals_ = -1;
  bool detached_ = false;
  std::vector<pid_t> children_;
  std::vector<std::string> names_;
  std::vector<std::pair<std::string, std::uint32_t>> bandwidths_;
  std::unique_ptr<FileServer> server_;
  std::unique_ptr<Publisher> publisher_;
  std::future<void> churning_;
};

}  // namespace

Endpoint NetworkState::Authority(int number) const { return {Address(instance, kAuthorities, number), kDirectoryPort}; }
Endpoint NetworkState::Client(int number) const { return {Address(instance, kClients, number), kSocksPort}; }
RelayPorts NetworkState::SpareRelay() const { return Ports(Address(instance, kRelays, 1)); }
RelayPorts NetworkState::GuardPorts(int place) const { return Ports(GuardAddress(place)); }
Endpoint NetworkState::FileServerEndpoint() const { return {Address(instance, kServices, 2), kFilePort}; }
std::string NetworkState::GuardAddress(int place) const { return Address(instance, place < kFirstQuietPlace ? kGuards : kQuiet, place); }
std::string NetworkState::GuardDirectory(int place) const {
  return absl::StrCat(NodesDirectory(options.directory), "/guard", place);
}
bool NetworkState::Alive() const { return supervisor > 0 && ProcessStartTime(supervisor) == supervisor_start; }

absl::StatusOr<NetworkState> ReadState(const std::string& directory) {
  const std::string path = StatePath(fs::absolute(directory).lexically_normal().string());
  const auto none = [&] { return absl::NotFoundError(absl::StrCat(directory, ": no network is up there; start one with: heaptape lab up --dir ", directory)); };
  if (!fs::exists(path)) return none();
  NetworkState state;
  try {
    const nlohmann::json json = nlohmann::json::parse(ReadFile(path));
    json.at("directory").get_to(state.options.directory);
    json.at("relay_count").get_to(state.options.relay_count);
    json.at("voting_interval_seconds").get_to(state.options.voting_interval_seconds);
    json.at("churn").get_to(state.options.churn);
    json.at("authority_count").get_to(state.options.authority_count);
    json.at("exit_count").get_to(state.options.exit_count);
    json.at("client_count").get_to(state.options.client_count);
    json.at("instance").get_to(state.instance);
    json.at("supervisor").get_to(state.supervisor);
    json.at("supervisor_start").get_to(state.supervisor_start);
    json.at("ready").get_to(state.ready);
    json.at("torrc").get_to(state.torrc);
    json.at("rounds").get_to(state.rounds);
  } catch (const nlohmann::json::exception& error) {
    return absl::DataLossError(absl::StrCat(path, ": not the state of a lab; run: heaptape lab down --dir ", directory));
  }
  if (!state.Alive()) return none();
  return state;
}

absl::StatusOr<std::unique_ptr<Network>> Network::Up(const NetworkOptions& given, const Progress& progress,
                                                     const std::atomic<bool>& cancelled) {
  NetworkOptions options = given;
  if (options.voting_interval_seconds < 10 || 86400 % options.voting_interval_seconds != 0) {
    return absl::InvalidArgumentError("--interval has to be at least 10 seconds and divide a day, as 10, 20, 60, 120, 300 do");
  }
  std::error_code error;
  fs::create_directories(options.directory, error);
  if (error) return absl::FailedPreconditionError(absl::StrCat(options.directory, ": cannot create: ", error.message(), "; choose another --dir"));
  options.directory = fs::canonical(options.directory).string();
  if (ReadState(options.directory).ok()) {
    return absl::AlreadyExistsError(absl::StrCat(options.directory, ": a network is up there already; choose another --dir or take it down first"));
  }
  KillRemaining(options.directory, kShutdownPatienceMs);

  int leash[2], reports[2];
  if (pipe2(leash, O_CLOEXEC) != 0 || pipe2(reports, O_CLOEXEC) != 0) return absl::InternalError(absl::StrCat("pipe: ", strerror(errno)));
  const pid_t child = fork();
  if (child < 0) return absl::InternalError(absl::StrCat("fork: ", strerror(errno)));
  if (child == 0) {
    close(leash[1]);
    close(reports[0]);
    Supervisor(options, leash[0], reports[1]).Run();
  }
  close(leash[0]);
  close(reports[1]);
  std::unique_ptr<Network> network(new Network);
  network->leash_ = leash[1];
  network->state_.options = options;
  network->state_.supervisor = child;
  const absl::Cleanup closer = [&] { close(reports[0]); };

  std::string received;
  char buffer[4096];
  while (true) {
    if (cancelled) return absl::CancelledError("interrupted");
    pollfd waited = {reports[0], POLLIN, 0};
    if (poll(&waited, 1, 100) <= 0) continue;
    const ssize_t count = read(reports[0], buffer, sizeof buffer);
    if (count <= 0) return absl::InternalError(absl::StrCat(options.directory, ": the lab's supervisor died; see ", options.directory, "/nodes"));
    received.append(buffer, static_cast<std::size_t>(count));
    for (std::size_t end; (end = received.find('\n')) != std::string::npos; received.erase(0, end + 1)) {
      const std::string line = received.substr(0, end);
      const std::size_t space = line.find(' ');
      if (line[0] == 'P' && space != std::string::npos && progress) progress(std::atof(line.c_str() + 1), line.substr(space + 1));
      if (line[0] == 'E' && space != std::string::npos) {
        return absl::Status(static_cast<absl::StatusCode>(std::atoi(line.c_str() + 1)), line.substr(space + 1));
      }
      if (line[0] == 'R') {
        absl::StatusOr<NetworkState> state = ReadState(options.directory);
        if (!state.ok()) return state.status();
        network->state_ = *std::move(state);
        return network;
      }
    }
  }
}

void Network::Detach() {
  if (leash_ >= 0 && write(leash_, "d", 1) == 1) {
    close(leash_);
    leash_ = -1;
  }
}

Network::~Network() {
  if (leash_ < 0) return;
  close(leash_);
  // The supervisor takes its patience with each of the processes.
  StopChildren({state_.supervisor}, 3 * kShutdownPatienceMs);
  KillRemaining(state_.options.directory, kShutdownPatienceMs);
}

absl::StatusOr<bool> Down(const std::string& given) {
  const std::string directory = fs::weakly_canonical(given).string();
  bool found = false;
  if (const absl::StatusOr<NetworkState> state = ReadState(directory); state.ok()) {
    found = true;
    kill(state->supervisor, SIGTERM);
    const auto deadline = Clock::now() + std::chrono::milliseconds(3 * kShutdownPatienceMs);
    while (state->Alive() && Clock::now() < deadline) {
      waitpid(state->supervisor, nullptr, WNOHANG);
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    if (state->Alive()) kill(state->supervisor, SIGKILL);
  }
  found = found || !FindProcesses(directory).empty();
  if (!KillRemaining(directory, kShutdownPatienceMs)) {
    return absl::InternalError(absl::StrCat(given, ": processes of the lab remain that cannot be killed; run this as the user who started them"));
  }
  std::error_code error;
  found = fs::exists(NodesDirectory(directory), error) || found;
  fs::remove(StatePath(directory), error);
  RemoveFiles(directory);
  return found;
}

absl::StatusOr<NetworkStatus> QueryStatus(const NetworkState& state) {
  NetworkStatus status;
  status.tor_processes = static_cast<int>(FindProcesses(state.options.directory).size());
  const absl::StatusOr<HttpReply> reply = Ask(state.Authority(1), GetRequest("/tor/status-vote/current/consensus-microdesc"), 10'000);
  if (!reply.ok()) return reply.status();
  if (reply->status == 200) {
    status.relays_in_consensus = CountRelays(reply->body);
    status.consensus_bytes = reply->body.size();
    const std::size_t at = reply->body.find("\nvalid-after ");
    if (at != std::string::npos) status.valid_after = reply->body.substr(at + 13, 19);
  }
  return status;
}

absl::StatusOr<RelayIdentity> RealRelayIdentity(const std::string& name) {
  SeededBytes seed(absl::StrCat("real ", name));
  const absl::StatusOr<RsaKey> key = RsaKey::FromPrimes(GenerateRsaPrimes(seed));
  if (!key.ok()) return key.status();
  return RelayIdentity{UpperHex(key->Fingerprint()), key->PrivatePem()};
}

absl::Status PrepareRelay(const std::string& data_directory, const RelayIdentity& identity) {
  std::error_code error;
  fs::create_directories(data_directory + "/keys", error);
  if (error) return absl::FailedPreconditionError(absl::StrCat(data_directory, ": cannot create: ", error.message()));
  chmod(data_directory.c_str(), 0700);
  chmod((data_directory + "/keys").c_str(), 0700);
  return WriteFile(data_directory + "/keys/secret_id_key", identity.private_pem);
}

absl::StatusOr<std::string> TorVersion() {
  const std::string program = absl::StrCat("PATH=\"$PATH:/usr/sbin\" tor --version 2>/dev/null");
  FILE* output = popen(program.c_str(), "re");
  char line[256] = "";
  if (output) {
    if (!fgets(line, sizeof line, output)) line[0] = '\0';
    while (fgetc(output) != EOF) {
    }
    pclose(output);
  }
  // "Tor version 0.4.9.11."
  std::string version = Field(line, "Tor version ");
  while (!version.empty() && version.back() == '.') version.pop_back();
  if (version.empty()) return absl::NotFoundError("tor: program not found; install it with: apt-get install tor");
  return version;
}

}  // namespace heaptape::lab
