// A private Tor network of real tor processes on loopback, with synthetic relays in its consensus.
//
// A supervisor process (forked, not executed anew) owns every tor process, the file server behind the
// exits and the churn. It lives as long as whoever holds the Network object, or, once detached, until
// Down(). When it dies, however it dies, the kernel kills the tor processes with it.

#ifndef HEAPTAPE_TRACES_LAB_NETWORK_H_
#define HEAPTAPE_TRACES_LAB_NETWORK_H_

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "traces/lab/http.h"

namespace heaptape::lab {

struct NetworkOptions {
  std::string directory;             // state and the nodes' data; made absolute
  std::string cache_folder;          // where the synthetic relays' keys are kept from one network to the next
  int relay_count = 300;             // synthetic ones in the consensus
  int voting_interval_seconds = 20;  // divides a day; at least 10
  double churn = 1;                  // times that of the public network; 0: none
  int authority_count = 3;
  int exit_count = 2;
  int client_count = 2;
};

// Relays under test that one network has places for.
inline constexpr int kGuardPlaces = 32;
// From this place on a relay is no guard and has no bandwidth to speak of: clients leave it alone, and it
// has only the directory's own traffic.
inline constexpr int kFirstQuietPlace = 25;

// Where a relay is reached.
struct RelayPorts {
  Endpoint link;       // its ORPort
  Endpoint directory;  // port 0: it has none
};

// What others need to know of a network that is up. Kept in DIRECTORY/lab.json.
struct NetworkState {
  NetworkOptions options;
  int instance = 0;                  // its addresses are 127.INSTANCE.0.0/16
  pid_t supervisor = 0;
  std::uint64_t supervisor_start = 0;  // ProcessStartTime()
  bool ready = false;
  std::string torrc;                 // lines that every relay of the network has in common
  int rounds = 0;                    // of churn since it was up

  Endpoint Authority(int number) const;  // directory port; numbers from 1
  Endpoint Client(int number) const;     // SOCKS port
  Endpoint FileServerEndpoint() const;
  RelayPorts SpareRelay() const;         // a relay that is always there
  std::string GuardAddress(int place) const;  // places from 1
  RelayPorts GuardPorts(int place) const;
  std::string GuardDirectory(int place) const;
  bool Alive() const;
};

// Seconds since the beginning of what is going on, its share done (0..1) and what it is.
using Progress = std::function<void(double share, const std::string& what)>;

class Network {
 public:
  // Starts a network and waits until a stream goes through it. Cancelled when `cancelled` became true;
  // then and after every other error nothing of it is left.
  static absl::StatusOr<std::unique_ptr<Network>> Up(const NetworkOptions& options, const Progress& progress,
                                                     const std::atomic<bool>& cancelled);
  ~Network();  // takes the network down unless detached
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;

  const NetworkState& state() const { return state_; }
  // The network stays when this process ends.
  void Detach();

 private:
  Network() = default;
  NetworkState state_;
  int leash_ = -1;
};

// NotFound where no network was started in `directory`, or it is gone.
absl::StatusOr<NetworkState> ReadState(const std::string& directory);

// Takes down what was started in `directory`, including what a crash left, and removes its files. True
// when there was something.
absl::StatusOr<bool> Down(const std::string& directory);

struct NetworkStatus {
  int tor_processes = 0;
  int relays_in_consensus = 0;
  std::uint64_t consensus_bytes = 0;
  std::string valid_after;
};
absl::StatusOr<NetworkStatus> QueryStatus(const NetworkState& state);

// Fingerprint and private key (PEM) of the relay at a guard's place.
struct RelayIdentity {
  std::string fingerprint;
  std::string private_pem;
};
absl::StatusOr<RelayIdentity> RealRelayIdentity(const std::string& name);
// Lays down a relay's data directory with that identity.
absl::Status PrepareRelay(const std::string& data_directory, const RelayIdentity& identity);

// "0.4.9.11", of the tor in PATH. NotFound with the remedy where there is none.
absl::StatusOr<std::string> TorVersion();

}  // namespace heaptape::lab

#endif  // HEAPTAPE_TRACES_LAB_NETWORK_H_
