// Keys of the synthetic relays: the same in every run, from nothing but a label, so that nothing in them
// is secret and a lab's consensus is reproducible. Never use them for anything real.

#ifndef HEAPTAPE_TRACES_LAB_KEYS_H_
#define HEAPTAPE_TRACES_LAB_KEYS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

using EVP_PKEY = struct evp_pkey_st;

namespace heaptape::lab {

std::string Sha1(const std::string& data);
std::string Sha256(const std::string& data);
std::string Sha3_256(const std::string& data);
std::string UpperHex(const std::string& data);
std::string Base64(const std::string& data);          // padded
std::string Base64Lines(const std::string& data);     // wrapped at 64 as in PEM, each line ended
std::string PemBlock(const std::string& label, const std::string& data);

// An endless stream of bytes that depends on its label only.
class SeededBytes {
 public:
  explicit SeededBytes(const std::string& label);
  std::string Take(std::size_t count);

 private:
  std::string key_;
  std::uint64_t counter_ = 0;
};

// The two primes of a 1024-bit RSA key.
struct RsaPrimes {
  std::array<std::uint8_t, 64> p, q;
};
RsaPrimes GenerateRsaPrimes(SeededBytes& seed);

class RsaKey {
 public:
  static absl::StatusOr<RsaKey> FromPrimes(const RsaPrimes& primes);
  const std::string& public_der() const { return public_der_; }  // PKCS#1
  std::string Fingerprint() const { return Sha1(public_der_); }  // 20 bytes
  std::string PrivatePem() const;                                // PKCS#1, as tor keeps it
  // PKCS#1 v1.5 signature over `data` as it is, without a digest's name: what tor's documents carry.
  std::string SignRaw(const std::string& data) const;

 private:
  std::shared_ptr<EVP_PKEY> key_;
  std::string public_der_;
};

class Ed25519Key {
 public:
  explicit Ed25519Key(SeededBytes& seed);
  const std::string& public_key() const { return public_key_; }
  std::string Sign(const std::string& data) const;
  // The same key in Montgomery form: an onion ("ntor") key whose owner can be proven by an ed25519
  // signature. `sign_bit` is what the Montgomery form loses.
  std::string CurvePublicKey() const;
  int sign_bit() const { return static_cast<std::uint8_t>(public_key_.back()) >> 7; }

 private:
  std::shared_ptr<EVP_PKEY> key_;
  std::string seed_;
  std::string public_key_;
};

// The RSA primes of relay 0 .. count-1 (identity key, first onion key), from the file `path` as far as it
// goes; the rest is made on `threads` threads (some 7 ms a relay) and appended to the file. `progress` gets
// done and total.
struct RelayPrimes {
  RsaPrimes identity, onion;
};
absl::StatusOr<std::vector<RelayPrimes>> LoadRelayPrimes(const std::string& path, std::size_t count, int threads,
                                                         const std::function<void(std::size_t, std::size_t)>& progress);

}  // namespace heaptape::lab

#endif  // HEAPTAPE_TRACES_LAB_KEYS_H_
