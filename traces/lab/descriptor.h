// Server descriptors of synthetic relays, signed as tor's directory authorities demand: RSA identity,
// ed25519 identity with its signing key's certificate, and cross-certified onion keys.

#ifndef HEAPTAPE_TRACES_LAB_DESCRIPTOR_H_
#define HEAPTAPE_TRACES_LAB_DESCRIPTOR_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "traces/lab/keys.h"

namespace heaptape::lab {

// What a synthetic relay says of itself; all of it may change from one descriptor to the next.
struct RelayFacts {
  std::string tor_version;        // "0.4.9.11"
  std::int64_t published_seconds = 0;  // Unix time
  std::uint32_t bandwidth_kilobytes = 100;
  std::uint32_t revision = 0;     // counts the descriptors: without a change in substance they are refused
  std::uint32_t onion_key_number = 0;  // counts the rotations of both onion keys
  bool hibernating = false;       // an authority leaves a hibernating relay out of the consensus
};

class SyntheticRelay {
 public:
  static absl::StatusOr<SyntheticRelay> Make(std::size_t index, const RelayPrimes& primes);
  // The 40 upper-case hex digits of the RSA identity.
  const std::string& fingerprint() const { return fingerprint_; }
  // Some 2.5 kB; takes about a millisecond.
  absl::StatusOr<std::string> Descriptor(const RelayFacts& facts) const;

 private:
  explicit SyntheticRelay(std::size_t index, const RelayPrimes& primes) : index_(index), primes_(primes) {}

  std::size_t index_;
  RelayPrimes primes_;
  std::string fingerprint_;
};

}  // namespace heaptape::lab

#endif  // HEAPTAPE_TRACES_LAB_DESCRIPTOR_H_
