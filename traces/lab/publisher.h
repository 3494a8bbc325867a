// The synthetic relays of a lab, as its directory authorities see them: published at first, then changing
// from round to round as the public network's do.

#ifndef HEAPTAPE_TRACES_LAB_PUBLISHER_H_
#define HEAPTAPE_TRACES_LAB_PUBLISHER_H_

#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "traces/lab/descriptor.h"
#include "traces/lab/http.h"

namespace heaptape::lab {

// Shares of all relays that change in one voting round, at `--churn 1`. From the public network: some 535
// of 8,000 descriptors are new in an hour's consensus, one relay in a hundred has new onion keys, one in
// a hundred leaves while another comes, and a third of the bandwidths are measured anew.
struct ChurnShares {
  double republished = 535.0 / 8000;
  double onion_keys = 0.01;
  double leaving = 0.01;
  double bandwidths = 0.35;
};

struct PublisherOptions {
  std::size_t relay_count = 300;         // in the consensus at any time
  std::vector<Endpoint> authorities;     // their directory ports
  std::string tor_version;
  std::string bandwidth_path;            // V3BandwidthsFile of all authorities
  // Fingerprint and bandwidth of the real relays.
  std::vector<std::pair<std::string, std::uint32_t>> real_bandwidths;
  std::string cache_folder;              // made where it is not there; keys are kept in it
  double churn = 1;                      // 0: nothing changes but what authorities change
  int threads = 2;
};

// One thread at a time.
class Publisher {
 public:
  // Loads or makes the keys and signs the first descriptors.
  static absl::StatusOr<Publisher> Make(const PublisherOptions& options,
                                        const std::function<void(std::size_t, std::size_t)>& progress);
  absl::Status WriteBandwidths();
  // Signs and posts every relay's first descriptor.
  absl::Status PublishAll(const std::function<void(std::size_t, std::size_t)>& progress);
  // One round of churn. Returns how many descriptors were posted to each authority.
  absl::StatusOr<std::size_t> Churn();

 private:
  struct Relay {
    SyntheticRelay relay;
    RelayFacts facts;
    std::uint32_t measured_bandwidth;
  };
  explicit Publisher(const PublisherOptions& options) : options_(options) {}
  absl::Status Publish(const std::vector<std::size_t>& relays, const std::function<void(std::size_t, std::size_t)>& progress);

  PublisherOptions options_;
  std::vector<Relay> relays_;  // more than are in the consensus: those who left come again
  std::mt19937 random_{1};     // the same churn in every run
};

}  // namespace heaptape::lab

#endif  // HEAPTAPE_TRACES_LAB_PUBLISHER_H_
