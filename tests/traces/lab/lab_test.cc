// The lab on a small scale, with real tor processes: it comes up, carries load, and leaves nothing behind.

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "traces/lab/descriptor.h"
#include "traces/lab/file_server.h"
#include "traces/lab/guard.h"
#include "traces/lab/keys.h"
#include "traces/lab/load.h"
#include "traces/lab/network.h"
#include "traces/lab/process.h"

namespace heaptape::lab {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

class TemporaryFolder {
 public:
  TemporaryFolder() {
    char name[] = "/tmp/heaptape-lab-test-XXXXXX";
    path_ = std::filesystem::canonical(mkdtemp(name)).string();
  }
  ~TemporaryFolder() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Waits for what has to come sooner or later. False after five minutes: a busy machine is slow, not wrong.
bool Eventually(const std::function<bool()>& reached) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(5);
  while (!reached()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  return true;
}

TEST(Keys, DependOnTheLabelOnly) {
  SeededBytes one("a"), same("a"), other("b");
  const RsaPrimes primes = GenerateRsaPrimes(one);
  EXPECT_EQ(primes.p, GenerateRsaPrimes(same).p);
  EXPECT_NE(primes.p, GenerateRsaPrimes(other).p);
  const auto key = RsaKey::FromPrimes(primes);
  ASSERT_TRUE(key.ok()) << key.status();
  EXPECT_EQ(key->public_der().size(), 140u);  // two integers: 1024 bits and 65537
  EXPECT_EQ(key->SignRaw("digest").size(), 128u);
  EXPECT_THAT(key->PrivatePem(), HasSubstr("BEGIN RSA PRIVATE KEY"));
}

TEST(Keys, AreKeptAndMadeAnewWhereTheFileIsDamaged) {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/relay-keys";
  int made = 0;
  const auto count = [&](std::size_t done, std::size_t) { made = static_cast<int>(done); };
  const auto first = LoadRelayPrimes(path, 16, 1, count);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(made, 16);
  made = 0;
  ASSERT_TRUE(LoadRelayPrimes(path, 16, 1, count).ok());
  EXPECT_EQ(made, 0);

  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(1000).put('x');
  file.close();
  const auto again = LoadRelayPrimes(path, 16, 1, count);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(made, 16);
  for (std::size_t i = 0; i < 16; ++i) EXPECT_EQ((*first)[i].onion.q, (*again)[i].onion.q);
}

TEST(Descriptor, ChangesWithItsFacts) {
  const TemporaryFolder folder;
  const auto primes = LoadRelayPrimes(folder.path() + "/relay-keys", 1, 1, nullptr);
  ASSERT_TRUE(primes.ok());
  const auto relay = SyntheticRelay::Make(0, primes->front());
  ASSERT_TRUE(relay.ok());
  RelayFacts facts = {.tor_version = "0.4.9.11", .published_seconds = 1'700'000'000};
  const auto first = relay->Descriptor(facts);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(*first, *relay->Descriptor(facts));
  EXPECT_THAT(*first, HasSubstr("\npublished 2023-11-14 22:13:20\n"));
  facts.onion_key_number = 1;
  facts.hibernating = true;
  const auto rotated = relay->Descriptor(facts);
  ASSERT_TRUE(rotated.ok());
  EXPECT_THAT(*rotated, HasSubstr("\nhibernating 1\n"));
  const auto onion_key = [](const std::string& text) { return text.substr(text.find("\nntor-onion-key "), 60); };
  EXPECT_NE(onion_key(*first), onion_key(*rotated));
}

TEST(FileServer, GivesAsManyBytesAsAskedFor) {
  const Endpoint endpoint = {"127.63.0.2", 20000 + getpid() % 20000};
  const auto server = FileServer::Start(endpoint);
  ASSERT_TRUE(server.ok()) << server.status();
  for (std::size_t size : {0, 1, 70'000, 5'000'000}) {
    const auto reply = Ask(endpoint, GetRequest("/" + std::to_string(size)), 120'000);
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_EQ(reply->body.size(), size);
  }
}

TEST(Http, SaysWhereNobodyListens) {
  const auto reply = Ask(Endpoint{"127.63.0.3", 9}, GetRequest("/"), 120'000);
  EXPECT_EQ(reply.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(reply.status().message()), HasSubstr("127.63.0.3:9"));
}

TEST(Process, ChildrenDieWithTheirParent) {
  const TemporaryFolder folder;
  const pid_t parent = fork();
  if (parent == 0) {
    (void)StartChild({.command = {"sleep", "1000"}, .lab_directory = folder.path()});
    pause();
  }
  ASSERT_TRUE(Eventually([&] { return FindProcesses(folder.path()).size() == 1; }));
  kill(parent, SIGKILL);
  waitpid(parent, nullptr, 0);
  EXPECT_TRUE(Eventually([&] { return FindProcesses(folder.path()).empty(); }));
}

TEST(Process, StragglersAreFoundAndKilled) {
  const TemporaryFolder folder;
  const auto child = StartChild({.command = {"sleep", "1000"}, .lab_directory = folder.path()});
  ASSERT_TRUE(child.ok());
  EXPECT_TRUE(Eventually([&] { return FindProcesses(folder.path()) == std::vector<pid_t>{*child}; }));
  EXPECT_TRUE(KillRemaining(folder.path(), 120'000));
  EXPECT_EQ(StartChild({.command = {"no-such-program"}, .lab_directory = folder.path()}).status().code(), absl::StatusCode::kNotFound);
}

class NetworkTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto version = TorVersion();
    ASSERT_TRUE(version.ok()) << version.status();
    options_.directory = folder_.path() + "/network";
    options_.cache_folder = folder_.path() + "/cache";
    options_.relay_count = 20;
    options_.voting_interval_seconds = 10;
    options_.client_count = 1;
  }

  TemporaryFolder folder_;
  NetworkOptions options_;
  std::atomic<bool> cancelled_ = false;
};

TEST_F(NetworkTest, CarriesLoadThroughAGuardAndLeavesNothing) {
  auto network = Network::Up(options_, nullptr, cancelled_);
  ASSERT_TRUE(network.ok()) << network.status();
  const NetworkState& state = (*network)->state();
  EXPECT_EQ(Network::Up(options_, nullptr, cancelled_).status().code(), absl::StatusCode::kAlreadyExists);

  auto guard = Guard::Start(state, {.cpus = 1, .torrc = {"GeoIPFile /dev/null", "GeoIPv6File /dev/null"}});
  ASSERT_TRUE(guard.ok()) << guard.status();
  ASSERT_TRUE(Eventually([&] { return (*guard)->Serving(); }));
  const auto status = QueryStatus(state);
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_GE(status->relays_in_consensus, 20 + 3 + 4);  // authorities, exits, the two others, the guard
  EXPECT_EQ(status->tor_processes, 3 + 2 + 2 + 1 + 1);
  {
    const auto load = Load::Start(state, {(*guard)->ports()}, {.streams = 4, .directory_requests_per_second = 20, .connections = 40});
    EXPECT_TRUE(Eventually([&] { return load->counts().streams > 3 && load->counts().directory_requests > 40 && load->counts().encodings.size() == 5; }));
    EXPECT_TRUE(Eventually([&] { return load->counts().connections_open >= 35; })) << load->counts().connections_open;
    EXPECT_GT(load->counts().stream_bytes, 0u);
  }
  const auto memory = (*guard)->ReadMemory();
  ASSERT_TRUE(memory.ok());
  EXPECT_GT(memory->anonymous_bytes, 1'000'000u);
  EXPECT_GE(memory->peak_bytes, memory->anonymous_bytes);
  EXPECT_TRUE((*guard)->Stop().ok());

  const std::string directory = state.options.directory;
  network->reset();
  EXPECT_THAT(FindProcesses(directory), IsEmpty());
  EXPECT_FALSE(std::filesystem::exists(directory));
  EXPECT_FALSE(ReadState(directory).ok());
}

TEST_F(NetworkTest, GoesWhenWhoeverStartsItIsKilled) {
  const pid_t starter = fork();
  if (starter == 0) {
    (void)Network::Up(options_, nullptr, cancelled_);
    _exit(0);
  }
  EXPECT_TRUE(Eventually([&] { return FindProcesses(options_.directory).size() >= 3; }));
  kill(starter, SIGKILL);
  waitpid(starter, nullptr, 0);
  EXPECT_TRUE(Eventually([&] { return FindProcesses(options_.directory).empty() && !ReadState(options_.directory).ok(); }));
}

TEST_F(NetworkTest, GoesWhenItsSupervisorIsKilled) {
  std::thread killer([&] {
    ASSERT_TRUE(Eventually([&] { return FindProcesses(options_.directory).size() >= 3; }));
    const auto state = ReadState(options_.directory);
    ASSERT_TRUE(state.ok()) << state.status();
    kill(state->supervisor, SIGKILL);
  });
  const auto network = Network::Up(options_, nullptr, cancelled_);
  killer.join();
  EXPECT_FALSE(network.ok());
  EXPECT_TRUE(Eventually([&] { return FindProcesses(options_.directory).empty(); }));
  const auto down = Down(options_.directory);
  ASSERT_TRUE(down.ok());
  EXPECT_FALSE(std::filesystem::exists(options_.directory));
}

TEST_F(NetworkTest, ComesToAnEndWhenInterrupted) {
  std::thread interrupter([&] {
    EXPECT_TRUE(Eventually([&] { return FindProcesses(options_.directory).size() >= 3; }));
    cancelled_ = true;
  });
  const auto network = Network::Up(options_, nullptr, cancelled_);
  interrupter.join();
  EXPECT_EQ(network.status().code(), absl::StatusCode::kCancelled);
  EXPECT_THAT(FindProcesses(options_.directory), IsEmpty());
}

TEST_F(NetworkTest, RefusesAnIntervalThatTorRefuses) {
  options_.voting_interval_seconds = 7;
  EXPECT_EQ(Network::Up(options_, nullptr, cancelled_).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace heaptape::lab
