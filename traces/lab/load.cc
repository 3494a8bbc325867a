#include "traces/lab/load.h"

#include <poll.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <deque>
#include <mutex>
#include <random>
#include <thread>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "traces/lab/http.h"
#include "traces/lab/keys.h"
#include "traces/lab/link.h"

namespace heaptape::lab {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kStreamTimeoutMs = 60'000;
constexpr int kDirectoryTimeoutMs = 60'000;
constexpr double kConnectionMeanSeconds = 180;  // tor clients close what they have not used for some minutes
constexpr double kConnectionHaste = 3;          // times the rate that would just replace those that go
constexpr std::size_t kOldConsensuses = 8;     // diffs are asked from these
constexpr std::size_t kDigestsPerRequest = 96;  // as tor clients do
constexpr const char* kEncodings[] = {"identity", "deflate", "gzip", "x-zstd", "x-tor-lzma"};

// What a client remembers of one consensus.
struct Consensus {
  std::string valid_after;
  std::string digest;                       // hex SHA3-256 of the signed part
  std::vector<std::string> microdescriptors;  // digests as they stand in it
  std::vector<std::string> fingerprints;    // hex
};

Consensus ParseConsensus(const std::string& text) {
  Consensus consensus;
  std::size_t at = text.find("\nvalid-after ");
  if (at != std::string::npos) consensus.valid_after = text.substr(at + 13, 19);
  // The signed part ends with the first signature's keyword and its space.
  at = text.find("\ndirectory-signature ");
  if (at != std::string::npos) consensus.digest = UpperHex(Sha3_256(text.substr(0, at + 21)));
  for (std::size_t line = 0; (line = text.find('\n', line)) != std::string::npos;) {
    ++line;
    if (text.compare(line, 2, "m ") == 0) {
      consensus.microdescriptors.push_back(text.substr(line + 2, text.find('\n', line) - line - 2));
    } else if (text.compare(line, 2, "r ") == 0) {
      const std::size_t identity = text.find(' ', line + 2) + 1;
      std::string raw;
      if (absl::Base64Unescape(text.substr(identity, 27) + "=", &raw)) consensus.fingerprints.push_back(UpperHex(raw));
    }
  }
  return consensus;
}

class RunningLoad final : public Load {
 public:
  RunningLoad(const NetworkState& network, const std::vector<RelayPorts>& relays, const LoadOptions& options)
      : network_(network), options_(options) {
    for (const RelayPorts& relay : relays) relays_.push_back({relay, Clock::now(), Clock::now(), 0});
    thread_ = std::thread([this] { Run(); });
  }
  ~RunningLoad() override {
    stop_ = true;
    thread_.join();
  }
  LoadCounts counts() const override {
    const std::lock_guard lock(mutex_);
    return counts_;
  }

 private:
  struct Relay {
    RelayPorts ports;
    Clock::time_point next_request, next_connection;
    int connections;
  };
  struct Held {
    std::unique_ptr<Link> link;
    Relay* relay;
    bool counted = false;
  };
  struct Going {
    std::unique_ptr<Exchange> exchange;
    bool stream = false;
    bool plain_consensus = false;
    bool asks_diff = false;
  };

  void Run() {
    std::vector<pollfd> waited;
    while (!stop_) {
      Begin();
      waited.clear();
      for (const Going& going : going_) waited.push_back({going.exchange->descriptor(), going.exchange->wanted(), 0});
      for (const Held& held : held_) waited.push_back({held.link->descriptor(), held.link->wanted(), 0});
      poll(waited.data(), waited.size(), 20);
      const std::size_t exchanges = going_.size();
      for (std::size_t i = held_.size(); i-- > 0;) {
        if (Hold(held_[i], waited[exchanges + i].revents)) continue;
        --held_[i].relay->connections;
        held_.erase(held_.begin() + static_cast<std::ptrdiff_t>(i));
      }
      for (std::size_t i = exchanges; i-- > 0;) {
        if (!going_[i].exchange->Advance(waited[i].revents)) continue;
        Count(going_[i], going_[i].exchange->Finish());
        going_.erase(going_.begin() + static_cast<std::ptrdiff_t>(i));
      }
    }
  }

  double Uniform() { return std::uniform_real_distribution<double>(0, 1)(random_); }
  std::size_t Below(std::size_t limit) { return std::uniform_int_distribution<std::size_t>(0, limit - 1)(random_); }

  void Begin() {
    const Clock::time_point now = Clock::now();
    const auto open = static_cast<int>(std::count_if(going_.begin(), going_.end(), [](const Going& g) { return g.stream; }));
    if (open < options_.streams && now >= next_stream_ && network_.options.client_count > 0) {
      // Sizes of web objects: from 1 kB to 4 MB, every doubling as often as another.
      const auto size = static_cast<std::uint64_t>(1000 * std::pow(2, 12 * Uniform()));
      const int client = 1 + static_cast<int>(Below(static_cast<std::size_t>(network_.options.client_count)));
      const Route route = {network_.FileServerEndpoint(), network_.Client(client), absl::StrCat("user", Below(24))};
      going_.push_back({std::make_unique<Exchange>(route, GetRequest(absl::StrCat("/", size)), kStreamTimeoutMs), true});
      next_stream_ = now + std::chrono::milliseconds(static_cast<int>(300 * Uniform()));
    }
    for (Relay& relay : relays_) {
      if (relay.connections < options_.connections && now >= relay.next_connection) {
        held_.push_back({std::make_unique<Link>(link_context_, relay.ports.link, now + Exponential(kConnectionMeanSeconds)), &relay});
        ++relay.connections;
        relay.next_connection = now + Exponential(kConnectionMeanSeconds / options_.connections / kConnectionHaste);
      }
      if (relay.ports.directory.port == 0 || options_.directory_requests_per_second <= 0 || now < relay.next_request) continue;
      relay.next_request = now + Exponential(1 / options_.directory_requests_per_second);
      going_.push_back(DirectoryRequest(relay.ports.directory));
    }
  }

  // Independent clients come, and go, at exponentially distributed intervals.
  std::chrono::microseconds Exponential(double mean_seconds) {
    return std::chrono::microseconds(static_cast<std::int64_t>(-std::log(1 - Uniform()) * 1e6 * mean_seconds));
  }

  // False: the connection is over.
  bool Hold(Held& held, short ready) {
    const bool open = held.link->Advance(ready);
    const bool serves = open && held.link->established();
    if (serves == held.counted) return open;
    const std::lock_guard lock(mutex_);
    if (serves) ++counts_.connections;
    counts_.connections_open += serves ? 1 : -1;
    held.counted = serves;
    return open;
  }

  Going DirectoryRequest(const Endpoint& directory) {
    const std::string encoding = kEncodings[Below(std::size(kEncodings))];
    std::string headers = absl::StrCat("Accept-Encoding: ", encoding, "\r\n");
    Going going;
    std::string path;
    const double kind = Uniform();
    const bool stale = consensuses_.empty() || Clock::now() - consensus_time_ > std::chrono::seconds(network_.options.voting_interval_seconds) / 2;
    if (stale) {
      path = "/tor/status-vote/current/consensus-microdesc";
      headers = "Accept-Encoding: identity\r\n";
      going.plain_consensus = true;
      consensus_time_ = Clock::now();
    } else if (kind < 0.3) {
      path = "/tor/status-vote/current/consensus-microdesc";
      absl::StrAppend(&headers, "X-Or-Diff-From-Consensus: ", consensuses_[Below(consensuses_.size())].digest, "\r\n");
      going.asks_diff = true;
    } else if (kind < 0.4) {
      path = "/tor/status-vote/current/consensus-microdesc";
    } else if (kind < 0.45) {
      path = "/tor/status-vote/current/consensus";
    } else if (kind < 0.8) {
      path = absl::StrCat("/tor/micro/d/", Some(consensuses_.back().microdescriptors, "-"));
    } else if (kind < 0.95) {
      path = absl::StrCat("/tor/server/fp/", Some(consensuses_.back().fingerprints, "+"));
    } else {
      path = "/tor/keys/all";
    }
    going.exchange = std::make_unique<Exchange>(Route{.server = directory}, GetRequest(path, headers), kDirectoryTimeoutMs);
    return going;
  }

  std::string Some(const std::vector<std::string>& names, const char* separator) {
    std::string list;
    if (names.empty()) return list;
    const std::size_t first = Below(names.size());
    for (std::size_t i = first; i < std::min(names.size(), first + kDigestsPerRequest); ++i) {
      absl::StrAppend(&list, list.empty() ? "" : separator, names[i]);
    }
    return list;
  }

  void Count(const Going& going, const absl::StatusOr<HttpReply>& reply) {
    const std::lock_guard lock(mutex_);
    if (going.stream) {
      ++(reply.ok() ? counts_.streams : counts_.streams_failed);
      if (reply.ok()) counts_.stream_bytes += reply->body.size();
      return;
    }
    // 304: the client has the newest already.
    if (!reply.ok() || (reply->status != 200 && reply->status != 304)) {
      ++counts_.directory_failed;
      return;
    }
    ++counts_.directory_requests;
    counts_.directory_bytes += reply->body.size();
    const std::size_t at = reply->headers.find("\r\nContent-Encoding: ");
    if (at != std::string::npos) ++counts_.encodings[reply->headers.substr(at + 20, reply->headers.find('\r', at + 2) - at - 20)];
    if (going.asks_diff && reply->body.compare(0, 27, "network-status-diff-version") == 0) ++counts_.diffs;
    if (!going.plain_consensus) return;
    Consensus consensus = ParseConsensus(reply->body);
    if (consensus.valid_after.empty() || (!consensuses_.empty() && consensuses_.back().valid_after == consensus.valid_after)) return;
    consensuses_.push_back(std::move(consensus));
    if (consensuses_.size() > kOldConsensuses) consensuses_.pop_front();
  }

  NetworkState network_;
  LoadOptions options_;
  std::vector<Relay> relays_;
  std::vector<Going> going_;
  LinkContext link_context_;
  std::vector<Held> held_;
  std::deque<Consensus> consensuses_;
  Clock::time_point consensus_time_;
  Clock::time_point next_stream_;
  std::mt19937 random_{7};
  mutable std::mutex mutex_;
  LoadCounts counts_;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<Load> Load::Start(const NetworkState& network, const std::vector<RelayPorts>& relays, const LoadOptions& options) {
  return std::make_unique<RunningLoad>(network, relays, options);
}

}  // namespace heaptape::lab
