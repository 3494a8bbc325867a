// A directory-caching guard relay of a lab's network: the process whose memory is in question.

#ifndef HEAPTAPE_TRACES_LAB_GUARD_H_
#define HEAPTAPE_TRACES_LAB_GUARD_H_

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "traces/lab/network.h"

namespace heaptape::lab {

struct GuardOptions {
  int place = 1;                      // 1 .. kGuardPlaces
  int cpus = 4;                       // NumCPUs
  std::vector<std::string> prefix;    // put before "tor -f torrc": the recording command, another loader
  std::vector<std::pair<std::string, std::string>> environment;  // LD_PRELOAD, tunables
  std::vector<std::string> torrc;     // more lines, as an operator would write them
};

// Memory of the relay at one moment, as its kernel accounts for it.
struct GuardMemory {
  std::uint64_t anonymous_bytes = 0;
  std::uint64_t file_bytes = 0;       // resident pages of files
  std::uint64_t peak_bytes = 0;       // highest sum of both since its start
};

// One thread at a time, and always the same: the relay dies with the thread that started it.
class Guard {
 public:
  static absl::StatusOr<std::unique_ptr<Guard>> Start(const NetworkState& network, const GuardOptions& options);
  ~Guard();  // kills what Stop() did not end
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;

  RelayPorts ports() const { return ports_; }
  int place() const { return place_; }
  // Has it ended by itself?
  bool Ended();
  // It stands in the consensus, and hands that out unless it keeps no directory.
  bool Serving() const;
  // NotFound once it has ended.
  absl::StatusOr<GuardMemory> ReadMemory() const;
  // CPU time of the relay alone, user and system. NotFound once it has ended.
  absl::StatusOr<std::uint64_t> ReadCpuNs() const;
  // Ends it as an operator would and waits until the recording is written. A relay that is asked in vain for half a minute is
  // killed (tor 0.4.9 may wait for ever for one of its own threads when it frees them): its recording is whole.
  absl::Status Stop();
  bool was_killed() const { return was_killed_; }

 private:
  Guard(const NetworkState& network, int place) : network_(network), place_(place), ports_(network.GuardPorts(place)) {}
  pid_t TorProcess() const;

  NetworkState network_;
  int place_;
  RelayPorts ports_;
  pid_t child_ = 0;
  bool was_killed_ = false;
};

}  // namespace heaptape::lab

#endif  // HEAPTAPE_TRACES_LAB_GUARD_H_
