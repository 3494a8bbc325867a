// What the files of `heaptape lab` share: its options, its talk, and the network a command works in.

#ifndef HEAPTAPE_REPLAYER_COMMANDS_LAB_H_
#define HEAPTAPE_REPLAYER_COMMANDS_LAB_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "allocators/catalog.h"
#include "replayer/commands/progress.h"
#include "traces/lab/guard.h"
#include "traces/lab/load.h"
#include "traces/lab/network.h"

namespace heaptape::commands {

// Ctrl-C (interrupt.h) asks every wait of these commands to come to an end, so that the network is taken down in
// order however often it is pressed. A reader of the output that has gone does not end the command either.
void CatchLabInterrupts();

// A bar on the terminal that tells what goes on; elsewhere one line for each new thing.
class Teller {
 public:
  ~Teller() { End(); }
  // `done` of `total`, in `unit`.
  void Say(const std::string& what, std::uint64_t done, std::uint64_t total, const std::string& unit);
  void End();

 private:
  ProgressBoard board_;
  int bar_ = -1;
  std::string what_;
};

struct NetworkFlags {
  NetworkFlags();  // where a network and its keys lie by default
  lab::NetworkOptions options;
  void AddDirectory(CLI::App& command);
  void Add(CLI::App& command);
};

struct LoadFlags {
  lab::LoadOptions options;
  void Add(CLI::App& command);
};

struct GuardFlags {
  lab::GuardOptions options;
  std::string allocator = "glibc";
  bool quiet = false;  // without clients
  std::string time_resolution = "10ms";  // of the recording
  void Add(CLI::App& command);
};

// A network that is up in the folder, or one brought up for the time this object lives.
class BorrowedNetwork {
 public:
  static absl::StatusOr<BorrowedNetwork> Get(const lab::NetworkOptions& options, Teller& teller);
  const lab::NetworkState& state() const { return state_; }

 private:
  std::unique_ptr<lab::Network> own_;
  lab::NetworkState state_;
};

// What RunUnderLoad() leaves: the load goes on until it is destroyed.
struct LoadedRun {
  std::unique_ptr<lab::Load> load;
  double seconds = 0;         // since RunUnderLoad() was called
  double loaded_seconds = 0;  // of them under load
};

// Lets relays that have just been started run side by side for `seconds`, under load from the moment on in which all of
// them serve. `each_tick`, where given, is called every `tick` before they are looked at. Ctrl-C ends it early.
// Internal where a relay ends, Cancelled on Ctrl-C before the load, DeadlineExceeded where not all came to serve.
absl::StatusOr<LoadedRun> RunUnderLoad(const lab::NetworkState& network, const std::vector<std::unique_ptr<lab::Guard>>& relays,
                                       const lab::LoadOptions& load, double seconds, Teller& teller, std::chrono::milliseconds tick,
                                       const std::function<void()>& each_tick = {});

// Ends relays as an operator would, and says which of them had to be killed.
absl::Status EndRelays(const std::vector<std::unique_ptr<lab::Guard>>& relays, Teller& teller);

// The command a program is started with to be recorded into `tape`.
std::vector<std::string> RecordingPrefix(const std::string& tape, const std::string& time_resolution, bool force);

// Says on stderr what clients asked and got.
void PrintCounts(const lab::LoadCounts& counts);

// Lets a relay run under an allocator, as LD_PRELOAD or another loader does.
void UseAllocator(const ResolvedAllocator& allocator, lab::GuardOptions& guard);

// InvalidArgument where the words name several.
absl::StatusOr<ResolvedAllocator> OneAllocator(const std::string& specification);

void AddLabCompare(CLI::App& lab_command, int& status);
void AddLabDays(CLI::App& lab_command, int& status);
void AddLabRelay(CLI::App& lab_command, int& status);

}  // namespace heaptape::commands

#endif  // HEAPTAPE_REPLAYER_COMMANDS_LAB_H_
