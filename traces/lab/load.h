// What clients ask of the relays under test: streams through circuits and directory documents in every
// encoding, with consensus diffs.

#ifndef HEAPTAPE_TRACES_LAB_LOAD_H_
#define HEAPTAPE_TRACES_LAB_LOAD_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "traces/lab/network.h"

namespace heaptape::lab {

struct LoadOptions {
  int streams = 8;                        // open at a time, over all clients
  double directory_requests_per_second = 4;  // to each relay under test
  int connections = 0;                    // of clients, held to each relay under test
};

struct LoadCounts {
  std::uint64_t streams = 0, stream_bytes = 0, streams_failed = 0;
  std::uint64_t directory_requests = 0, directory_bytes = 0, directory_failed = 0;
  std::uint64_t diffs = 0;                // replies that were consensus diffs
  std::uint64_t connections = 0;          // that came to an open circuit
  std::uint64_t connections_open = 0;     // now
  std::map<std::string, std::uint64_t> encodings;  // replies by Content-Encoding
};

// Runs on a thread of its own until destroyed.
class Load {
 public:
  static std::unique_ptr<Load> Start(const NetworkState& network, const std::vector<RelayPorts>& relays, const LoadOptions& options);
  virtual ~Load() = default;
  virtual LoadCounts counts() const = 0;  // any thread
};

}  // namespace heaptape::lab

#endif  // HEAPTAPE_TRACES_LAB_LOAD_H_
