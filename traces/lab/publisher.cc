#include "traces/lab/publisher.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"

namespace heaptape::lab {
namespace {

// Real relays are to carry all the traffic: clients cap a relay's weight near 2,000,000 kB/s.
constexpr std::uint32_t kLargestSyntheticBandwidth = 99;
constexpr std::size_t kDescriptorsPerPost = 400;
constexpr int kPostTimeoutMs = 60'000;

}  // namespace

absl::StatusOr<Publisher> Publisher::Make(const PublisherOptions& options,
                                          const std::function<void(std::size_t, std::size_t)>& progress) {
  Publisher publisher(options);
  const std::size_t pool = options.relay_count + options.relay_count / 20;
  if (pool == 0) return publisher;
  std::error_code error;
  std::filesystem::create_directories(options.cache_folder, error);
  if (error) return absl::FailedPreconditionError(absl::StrCat(options.cache_folder, ": cannot create: ", error.message()));
  const absl::StatusOr<std::vector<RelayPrimes>> primes =
      LoadRelayPrimes(absl::StrCat(options.cache_folder, "/relay-keys"), pool, options.threads, progress);
  if (!primes.ok()) return primes.status();
  for (std::size_t i = 0; i < pool; ++i) {
    absl::StatusOr<SyntheticRelay> relay = SyntheticRelay::Make(i, (*primes)[i]);
    if (!relay.ok()) return relay.status();
    RelayFacts facts;
    facts.tor_version = options.tor_version;
    facts.bandwidth_kilobytes = 100 + publisher.random_() % 10000;
    facts.hibernating = i >= options.relay_count;
    publisher.relays_.push_back({*std::move(relay), facts, static_cast<std::uint32_t>(1 + publisher.random_() % kLargestSyntheticBandwidth)});
  }
  return publisher;
}

absl::Status Publisher::WriteBandwidths() {
  const std::string part = absl::StrCat(options_.bandwidth_path, ".part");
  std::ofstream file(part);
  file << std::time(nullptr) << "\n";
  for (const auto& [fingerprint, bandwidth] : options_.real_bandwidths) {
    file << "node_id=$" << fingerprint << " bw=" << bandwidth << "\n";
  }
  for (const Relay& relay : relays_) {
    file << "node_id=$" << relay.relay.fingerprint() << " bw=" << relay.measured_bandwidth << "\n";
  }
  file.close();
  if (!file || std::rename(part.c_str(), options_.bandwidth_path.c_str()) != 0) {
    return absl::FailedPreconditionError(absl::StrCat(options_.bandwidth_path, ": cannot write; make room there"));
  }
  return absl::OkStatus();
}

absl::Status Publisher::Publish(const std::vector<std::size_t>& relays,
                                const std::function<void(std::size_t, std::size_t)>& progress) {
  const std::int64_t now = std::time(nullptr);
  const std::size_t batches = (relays.size() + kDescriptorsPerPost - 1) / kDescriptorsPerPost;
  std::vector<absl::Status> outcomes(batches);
  std::atomic<std::size_t> next = 0, done = 0;
  const auto work = [&] {
    for (std::size_t batch; (batch = next++) < batches;) {
      std::string body;
      for (std::size_t i = batch * kDescriptorsPerPost; i < std::min(relays.size(), (batch + 1) * kDescriptorsPerPost); ++i) {
        Relay& relay = relays_[relays[i]];
        relay.facts.published_seconds = now;
        const absl::StatusOr<std::string> descriptor = relay.relay.Descriptor(relay.facts);
        if (!descriptor.ok()) {
          outcomes[batch] = descriptor.status();
          return;
        }
        body += *descriptor;
      }
      for (const Endpoint& authority : options_.authorities) {
        const absl::StatusOr<HttpReply> reply = Ask(authority, PostRequest("/tor/", body), kPostTimeoutMs);
        if (!reply.ok()) {
          outcomes[batch] = reply.status();
        } else if (reply->status != 200) {
          outcomes[batch] = absl::InternalError(absl::StrCat("authority ", authority.ToString(),
                                                             " refused descriptors: ", reply->headers.substr(0, reply->headers.find('\r'))));
        }
      }
      ++done;
      if (progress) progress(std::min(relays.size(), done * kDescriptorsPerPost), relays.size());
    }
  };
  std::vector<std::thread> workers;
  for (int i = 0; i < options_.threads; ++i) workers.emplace_back(work);
  for (std::thread& worker : workers) worker.join();
  for (const absl::Status& outcome : outcomes) {
    if (!outcome.ok()) return outcome;
  }
  return absl::OkStatus();
}

absl::Status Publisher::PublishAll(const std::function<void(std::size_t, std::size_t)>& progress) {
  std::vector<std::size_t> first;
  for (std::size_t i = 0; i < std::min(relays_.size(), options_.relay_count); ++i) first.push_back(i);
  return Publish(first, progress);
}

absl::StatusOr<std::size_t> Publisher::Churn() {
  if (relays_.empty() || options_.churn <= 0) return std::size_t{0};
  const ChurnShares shares;
  const auto count = [&](double share) {
    const double wanted = share * options_.churn * static_cast<double>(options_.relay_count);
    return std::min(options_.relay_count, static_cast<std::size_t>(std::llround(wanted)));
  };
  std::vector<std::size_t> active, away;
  for (std::size_t i = 0; i < relays_.size(); ++i) (relays_[i].facts.hibernating ? away : active).push_back(i);
  std::shuffle(active.begin(), active.end(), random_);
  std::shuffle(away.begin(), away.end(), random_);

  std::set<std::size_t> changed;
  const std::size_t leaving = std::min({count(shares.leaving), away.size(), active.size()});
  for (std::size_t i = 0; i < leaving; ++i) {
    relays_[active[i]].facts.hibernating = true;
    relays_[away[i]].facts.hibernating = false;
    changed.insert({active[i], away[i]});
  }
  const std::size_t rotating = std::min(active.size(), leaving + count(shares.onion_keys));
  for (std::size_t i = leaving; i < rotating; ++i) {
    ++relays_[active[i]].facts.onion_key_number;
    changed.insert(active[i]);
  }
  for (std::size_t i = rotating; i < active.size() && changed.size() < count(shares.republished); ++i) changed.insert(active[i]);
  for (std::size_t i : changed) {
    ++relays_[i].facts.revision;
    relays_[i].facts.bandwidth_kilobytes = 100 + random_() % 10000;
  }
  std::shuffle(active.begin(), active.end(), random_);
  for (std::size_t i = 0; i < std::min(active.size(), count(shares.bandwidths)); ++i) {
    relays_[active[i]].measured_bandwidth = 1 + random_() % kLargestSyntheticBandwidth;
  }

  if (absl::Status status = WriteBandwidths(); !status.ok()) return status;
  if (absl::Status status = Publish({changed.begin(), changed.end()}, nullptr); !status.ok()) return status;
  return changed.size();
}

}  // namespace heaptape::lab
