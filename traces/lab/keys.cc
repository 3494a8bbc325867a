#include "traces/lab/keys.h"

#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <mutex>
#include <thread>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace heaptape::lab {
namespace {

std::string Digest(const EVP_MD* kind, const std::string& data) {
  unsigned char out[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  EVP_Digest(data.data(), data.size(), out, &length, kind, nullptr);
  return std::string(reinterpret_cast<char*>(out), length);
}

const unsigned char* Bytes(const std::string& data) { return reinterpret_cast<const unsigned char*>(data.data()); }
unsigned char* Bytes(std::string& data) { return reinterpret_cast<unsigned char*>(data.data()); }

using Number = std::unique_ptr<BIGNUM, decltype(&BN_free)>;
Number NewNumber() { return Number(BN_new(), &BN_free); }

const std::vector<unsigned>& SmallPrimes() {
  static const std::vector<unsigned> primes = [] {
    std::vector<unsigned> found;
    for (unsigned n = 3; found.size() < 400; n += 2) {
      if (std::all_of(found.begin(), found.end(), [n](unsigned p) { return n % p != 0; })) found.push_back(n);
    }
    return found;
  }();
  return primes;
}

// Fermat's test to the bases 2 and 3 is enough for keys that guard nothing; a failure would show as a
// descriptor that authorities reject.
bool LooksPrime(const BIGNUM* candidate, BN_CTX* context) {
  Number exponent = NewNumber(), base = NewNumber(), power = NewNumber();
  BN_copy(exponent.get(), candidate);
  BN_sub_word(exponent.get(), 1);
  for (unsigned witness : {2u, 3u}) {
    BN_set_word(base.get(), witness);
    BN_mod_exp(power.get(), base.get(), exponent.get(), candidate, context);
    if (!BN_is_one(power.get())) return false;
  }
  return true;
}

std::array<std::uint8_t, 64> GeneratePrime(SeededBytes& seed, BN_CTX* context) {
  constexpr unsigned kPublicExponent = 65537;
  const std::vector<unsigned>& small = SmallPrimes();
  Number candidate = NewNumber();
  std::vector<unsigned> remainders(small.size());
  while (true) {
    std::string start = seed.Take(64);
    start.front() = static_cast<char>(start.front() | 0xc0);  // the product then has 1024 bits
    start.back() = static_cast<char>(start.back() | 1);
    BN_bin2bn(Bytes(start), 64, candidate.get());
    for (std::size_t i = 0; i < small.size(); ++i) {
      remainders[i] = static_cast<unsigned>(BN_mod_word(candidate.get(), small[i]));
    }
    for (unsigned step = 0, added = 0; step < 4000; step += 2) {
      bool divisible = false;
      for (std::size_t i = 0; i < small.size() && !divisible; ++i) divisible = (remainders[i] + step) % small[i] == 0;
      if (divisible) continue;
      BN_add_word(candidate.get(), step - added);
      added = step;
      if (BN_num_bits(candidate.get()) != 512) break;
      if (BN_mod_word(candidate.get(), kPublicExponent) == 1) continue;
      if (!LooksPrime(candidate.get(), context)) continue;
      std::array<std::uint8_t, 64> prime;
      BN_bn2binpad(candidate.get(), prime.data(), 64);
      return prime;
    }
  }
}

// One relay in the cache file: four primes, then the first eight bytes of their SHA-256.
constexpr std::size_t kPrimesBytes = sizeof(RelayPrimes);
constexpr std::size_t kRecordBytes = kPrimesBytes + 8;
static_assert(sizeof(RelayPrimes) == 256);

std::string ToRecord(const RelayPrimes& primes) {
  std::string record(reinterpret_cast<const char*>(&primes), kPrimesBytes);
  return record + Sha256(record).substr(0, 8);
}

}  // namespace

std::string Sha1(const std::string& data) { return Digest(EVP_sha1(), data); }
std::string Sha256(const std::string& data) { return Digest(EVP_sha256(), data); }
std::string Sha3_256(const std::string& data) { return Digest(EVP_sha3_256(), data); }

std::string UpperHex(const std::string& data) {
  std::string hex = absl::BytesToHexString(data);
  std::transform(hex.begin(), hex.end(), hex.begin(), [](unsigned char c) { return std::toupper(c); });
  return hex;
}

std::string Base64(const std::string& data) { return absl::Base64Escape(data); }

std::string Base64Lines(const std::string& data) {
  const std::string text = Base64(data);
  std::string lines;
  for (std::size_t at = 0; at < text.size(); at += 64) absl::StrAppend(&lines, text.substr(at, 64), "\n");
  return lines;
}

std::string PemBlock(const std::string& label, const std::string& data) {
  return absl::StrCat("-----BEGIN ", label, "-----\n", Base64Lines(data), "-----END ", label, "-----\n");
}

SeededBytes::SeededBytes(const std::string& label) : key_(Sha256(absl::StrCat("heaptape lab ", label))) {}

std::string SeededBytes::Take(std::size_t count) {
  std::string bytes;
  while (bytes.size() < count) bytes += Sha256(absl::StrCat(key_, counter_++));
  bytes.resize(count);
  return bytes;
}

RsaPrimes GenerateRsaPrimes(SeededBytes& seed) {
  const std::unique_ptr<BN_CTX, decltype(&BN_CTX_free)> context(BN_CTX_new(), &BN_CTX_free);
  return {GeneratePrime(seed, context.get()), GeneratePrime(seed, context.get())};
}

absl::StatusOr<RsaKey> RsaKey::FromPrimes(const RsaPrimes& primes) {
  const std::unique_ptr<BN_CTX, decltype(&BN_CTX_free)> context(BN_CTX_new(), &BN_CTX_free);
  Number p = NewNumber(), q = NewNumber(), n = NewNumber(), e = NewNumber(), d = NewNumber(), dp = NewNumber(),
         dq = NewNumber(), qi = NewNumber(), p1 = NewNumber(), q1 = NewNumber(), phi = NewNumber();
  BN_bin2bn(primes.p.data(), 64, p.get());
  BN_bin2bn(primes.q.data(), 64, q.get());
  if (BN_cmp(p.get(), q.get()) < 0) std::swap(p, q);
  BN_mul(n.get(), p.get(), q.get(), context.get());
  BN_set_word(e.get(), 65537);
  BN_sub(p1.get(), p.get(), BN_value_one());
  BN_sub(q1.get(), q.get(), BN_value_one());
  BN_mul(phi.get(), p1.get(), q1.get(), context.get());
  bool sound = BN_num_bits(n.get()) == 1024 && BN_mod_inverse(d.get(), e.get(), phi.get(), context.get()) &&
               BN_mod_inverse(qi.get(), q.get(), p.get(), context.get());
  if (!sound) return absl::DataLossError("the lab's kept relay keys are damaged; delete the cache folder");
  BN_mod(dp.get(), d.get(), p1.get(), context.get());
  BN_mod(dq.get(), d.get(), q1.get(), context.get());

  const std::unique_ptr<OSSL_PARAM_BLD, decltype(&OSSL_PARAM_BLD_free)> build(OSSL_PARAM_BLD_new(), &OSSL_PARAM_BLD_free);
  OSSL_PARAM_BLD_push_BN(build.get(), OSSL_PKEY_PARAM_RSA_N, n.get());
  OSSL_PARAM_BLD_push_BN(build.get(), OSSL_PKEY_PARAM_RSA_E, e.get());
  OSSL_PARAM_BLD_push_BN(build.get(), OSSL_PKEY_PARAM_RSA_D, d.get());
  OSSL_PARAM_BLD_push_BN(build.get(), OSSL_PKEY_PARAM_RSA_FACTOR1, p.get());
  OSSL_PARAM_BLD_push_BN(build.get(), OSSL_PKEY_PARAM_RSA_FACTOR2, q.get());
  OSSL_PARAM_BLD_push_BN(build.get(), OSSL_PKEY_PARAM_RSA_EXPONENT1, dp.get());
  OSSL_PARAM_BLD_push_BN(build.get(), OSSL_PKEY_PARAM_RSA_EXPONENT2, dq.get());
  OSSL_PARAM_BLD_push_BN(build.get(), OSSL_PKEY_PARAM_RSA_COEFFICIENT1, qi.get());
  OSSL_PARAM* parameters = OSSL_PARAM_BLD_to_param(build.get());
  const std::unique_ptr<EVP_PKEY_CTX, decltype(&EVP_PKEY_CTX_free)> maker(EVP_PKEY_CTX_new_id(EVP_PKEY_RSA, nullptr),
                                                                          &EVP_PKEY_CTX_free);
  EVP_PKEY* key = nullptr;
  EVP_PKEY_fromdata_init(maker.get());
  sound = EVP_PKEY_fromdata(maker.get(), &key, EVP_PKEY_KEYPAIR, parameters) == 1;
  OSSL_PARAM_free(parameters);
  if (!sound) return absl::InternalError("OpenSSL refuses a 1024-bit RSA key; use OpenSSL's default security level (OPENSSL_CONF)");

  RsaKey result;
  result.key_ = std::shared_ptr<EVP_PKEY>(key, &EVP_PKEY_free);
  unsigned char* der = nullptr;
  const int length = i2d_PublicKey(key, &der);
  result.public_der_.assign(reinterpret_cast<char*>(der), static_cast<std::size_t>(length));
  OPENSSL_free(der);
  return result;
}

std::string RsaKey::PrivatePem() const {
  const std::unique_ptr<BIO, decltype(&BIO_free)> memory(BIO_new(BIO_s_mem()), &BIO_free);
  PEM_write_bio_PrivateKey_traditional(memory.get(), key_.get(), nullptr, nullptr, 0, nullptr, nullptr);
  char* text = nullptr;
  const long length = BIO_get_mem_data(memory.get(), &text);
  return std::string(text, static_cast<std::size_t>(length));
}

std::string RsaKey::SignRaw(const std::string& data) const {
  const std::unique_ptr<EVP_PKEY_CTX, decltype(&EVP_PKEY_CTX_free)> signer(EVP_PKEY_CTX_new(key_.get(), nullptr),
                                                                           &EVP_PKEY_CTX_free);
  EVP_PKEY_sign_init(signer.get());
  EVP_PKEY_CTX_set_rsa_padding(signer.get(), RSA_PKCS1_PADDING);
  std::string signature(128, '\0');
  std::size_t length = signature.size();
  EVP_PKEY_sign(signer.get(), Bytes(signature), &length, Bytes(data), data.size());
  signature.resize(length);
  return signature;
}

Ed25519Key::Ed25519Key(SeededBytes& seed) : seed_(seed.Take(32)), public_key_(32, '\0') {
  key_ = std::shared_ptr<EVP_PKEY>(EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr, Bytes(seed_), 32),
                                   &EVP_PKEY_free);
  std::size_t length = 32;
  EVP_PKEY_get_raw_public_key(key_.get(), Bytes(public_key_), &length);
}

std::string Ed25519Key::Sign(const std::string& data) const {
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> signer(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
  EVP_DigestSignInit(signer.get(), nullptr, nullptr, nullptr, key_.get());
  std::string signature(64, '\0');
  std::size_t length = signature.size();
  EVP_DigestSign(signer.get(), Bytes(signature), &length, Bytes(data), data.size());
  return signature;
}

std::string Ed25519Key::CurvePublicKey() const {
  // RFC 8032 derives the secret scalar from the seed by SHA-512; X25519 clamps it in the same way.
  const std::string scalar = Digest(EVP_sha512(), seed_).substr(0, 32);
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> curve(
      EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, nullptr, Bytes(scalar), 32), &EVP_PKEY_free);
  std::string result(32, '\0');
  std::size_t length = 32;
  EVP_PKEY_get_raw_public_key(curve.get(), Bytes(result), &length);
  return result;
}

absl::StatusOr<std::vector<RelayPrimes>> LoadRelayPrimes(
    const std::string& path, std::size_t count, int threads,
    const std::function<void(std::size_t, std::size_t)>& progress) {
  std::vector<RelayPrimes> relays(count);
  std::size_t kept = 0;
  {
    std::ifstream file(path, std::ios::binary);
    for (std::string record(kRecordBytes, '\0'); kept < count && file.read(record.data(), kRecordBytes); ++kept) {
      if (record.substr(kPrimesBytes) != Sha256(record.substr(0, kPrimesBytes)).substr(0, 8)) break;
      std::memcpy(&relays[kept], record.data(), kPrimesBytes);
    }
  }
  if (kept == count) return relays;

  std::atomic<std::size_t> next = kept, done = kept;
  std::mutex report;
  std::vector<std::thread> workers;
  for (int i = 0; i < threads; ++i) {
    workers.emplace_back([&] {
      for (std::size_t relay; (relay = next++) < count;) {
        SeededBytes identity(absl::StrCat("relay ", relay, " rsa identity"));
        SeededBytes onion(absl::StrCat("relay ", relay, " onion key 0"));
        relays[relay] = {GenerateRsaPrimes(identity), GenerateRsaPrimes(onion)};
        const std::size_t made = ++done;
        if (progress && made % 16 == 0) {
          const std::lock_guard lock(report);
          progress(made, count);
        }
      }
    });
  }
  for (std::thread& worker : workers) worker.join();

  // Another lab may do the same at the same time: each writes a file of its own, the last one stays.
  const std::string temporary = absl::StrCat(path, ".", getpid(), ".part");
  std::ofstream file(temporary, std::ios::binary);
  for (const RelayPrimes& relay : relays) file << ToRecord(relay);
  file.close();
  std::error_code error;
  if (file) std::filesystem::rename(temporary, path, error);
  if (!file || error) {
    std::filesystem::remove(temporary, error);
    return absl::FailedPreconditionError(absl::StrCat(path, ": cannot write the relay keys; make room there"));
  }
  return relays;
}

}  // namespace heaptape::lab
