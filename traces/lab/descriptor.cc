#include "traces/lab/descriptor.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"

namespace heaptape::lab {
namespace {

// Certificate types and the one extension that tor's cert-spec names.
constexpr char kSigningKeyCertificate = 4;
constexpr char kOnionKeyCertificate = 10;
constexpr char kSignedWithKeyExtension = 4;

std::string Certificate(char type, const std::string& certified_key, const Ed25519Key& signer, bool name_signer,
                        std::int64_t expires_seconds) {
  const auto hours = static_cast<std::uint32_t>(expires_seconds / 3600);
  std::string body = {1, type};
  for (int shift : {24, 16, 8, 0}) body.push_back(static_cast<char>(hours >> shift));
  body.push_back(1);  // the certified key is an ed25519 key
  body += certified_key;
  body.push_back(name_signer ? 1 : 0);
  if (name_signer) {
    body += {0, 32, kSignedWithKeyExtension, 0};
    body += signer.public_key();
  }
  return body + signer.Sign(body);
}

std::string Unpadded(std::string base64) {
  while (!base64.empty() && base64.back() == '=') base64.pop_back();
  return base64;
}

}  // namespace

absl::StatusOr<SyntheticRelay> SyntheticRelay::Make(std::size_t index, const RelayPrimes& primes) {
  SyntheticRelay relay(index, primes);
  const absl::StatusOr<RsaKey> identity = RsaKey::FromPrimes(primes.identity);
  if (!identity.ok()) return identity.status();
  relay.fingerprint_ = UpperHex(identity->Fingerprint());
  return relay;
}

absl::StatusOr<std::string> SyntheticRelay::Descriptor(const RelayFacts& facts) const {
  const std::string name = absl::StrCat("relay ", index_);
  SeededBytes identity_seed(absl::StrCat(name, " ed25519 identity"));
  SeededBytes signing_seed(absl::StrCat(name, " ed25519 signing"));
  SeededBytes ntor_seed(absl::StrCat(name, " ntor ", facts.onion_key_number));
  const Ed25519Key identity(identity_seed), signing(signing_seed), ntor(ntor_seed);
  RsaPrimes onion_primes = primes_.onion;
  if (facts.onion_key_number > 0) {
    SeededBytes onion_seed(absl::StrCat(name, " onion key ", facts.onion_key_number));
    onion_primes = GenerateRsaPrimes(onion_seed);
  }
  const absl::StatusOr<RsaKey> rsa = RsaKey::FromPrimes(primes_.identity);
  const absl::StatusOr<RsaKey> onion = RsaKey::FromPrimes(onion_primes);
  if (!rsa.ok()) return rsa.status();
  if (!onion.ok()) return onion.status();

  const std::int64_t expires = facts.published_seconds + 30 * 86400;
  std::string spaced;
  for (std::size_t at = 0; at < fingerprint_.size(); at += 4) absl::StrAppend(&spaced, " ", fingerprint_.substr(at, 4));
  const std::uint64_t bandwidth = std::uint64_t{facts.bandwidth_kilobytes} * 1024;

  // 127.16.0.0/12: loopback too, but nobody listens there.
  std::string text = absl::StrFormat(
      "router synthetic%d 127.%d.%d.%d 9001 0 0\n", index_, 16 + (index_ >> 16) % 16, (index_ >> 8) & 255,
      index_ & 255);
  absl::StrAppend(&text, "identity-ed25519\n",
                  PemBlock("ED25519 CERT", Certificate(kSigningKeyCertificate, signing.public_key(), identity, true, expires)),
                  "master-key-ed25519 ", Unpadded(Base64(identity.public_key())), "\n",
                  "platform Tor ", facts.tor_version, " on Linux\n",
                  "proto Conflux=1 Cons=1-2 Desc=1-2 DirCache=2 FlowCtrl=1-2 HSDir=2 HSIntro=4-5 HSRend=1-2 Link=1-5 "
                  "LinkAuth=1,3 Microdesc=1-2 Padding=2 Relay=1-4\n",
                  "published ",
                  absl::FormatTime("%Y-%m-%d %H:%M:%S", absl::FromUnixSeconds(facts.published_seconds), absl::UTCTimeZone()),
                  "\nfingerprint", spaced, "\n");
  absl::StrAppend(&text, "uptime ", 86400 + index_ * 97 + facts.revision, "\n", "bandwidth ", bandwidth * 2, " ",
                  bandwidth * 4, " ", bandwidth, "\n", facts.hibernating ? "hibernating 1\n" : "",
                  "onion-key\n", PemBlock("RSA PUBLIC KEY", onion->public_der()),
                  "signing-key\n", PemBlock("RSA PUBLIC KEY", rsa->public_der()));
  absl::StrAppend(&text, "onion-key-crosscert\n",
                  PemBlock("CROSSCERT", onion->SignRaw(rsa->Fingerprint() + identity.public_key())),
                  "ntor-onion-key-crosscert ", ntor.sign_bit(), "\n",
                  PemBlock("ED25519 CERT", Certificate(kOnionKeyCertificate, identity.public_key(), ntor, false, expires)),
                  "hidden-service-dir\n",
                  "contact operator ", index_ % 211, " of the lab, revision ", facts.revision, "\n",
                  "ntor-onion-key ", Base64(ntor.CurvePublicKey()), "\n",
                  "reject *:*\n", "router-sig-ed25519 ");
  const std::string signature = signing.Sign(Sha256(absl::StrCat("Tor router descriptor signature v1", text)));
  absl::StrAppend(&text, Unpadded(Base64(signature)), "\nrouter-signature\n");
  return text + PemBlock("SIGNATURE", rsa->SignRaw(Sha1(text)));
}

}  // namespace heaptape::lab
