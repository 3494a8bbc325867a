#include "traces/lab/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"

namespace heaptape::lab {
namespace {

absl::StatusOr<HttpReply> ParseReply(const std::string& received) {
  const std::size_t end = received.find("\r\n\r\n");
  if (end == std::string::npos || received.compare(0, 7, "HTTP/1.") != 0 || received.size() < 12) {
    return absl::DataLossError("not an HTTP reply");
  }
  HttpReply reply{std::atoi(received.c_str() + 9), received.substr(0, end + 2), received.substr(end + 4)};
  const std::size_t length = reply.headers.find("\r\nContent-Length: ");
  if (length != std::string::npos && reply.body.size() < std::strtoull(reply.headers.c_str() + length + 18, nullptr, 10)) {
    return absl::DataLossError("the reply was cut short");
  }
  return reply;
}

}  // namespace

sockaddr_in Endpoint::Socket() const {
  sockaddr_in socket = {};
  socket.sin_family = AF_INET;
  socket.sin_port = htons(static_cast<std::uint16_t>(port));
  inet_pton(AF_INET, address.c_str(), &socket.sin_addr);
  return socket;
}

std::string Endpoint::ToString() const { return absl::StrCat(address, ":", port); }

std::string GetRequest(const std::string& path, const std::string& headers) {
  return absl::StrCat("GET ", path, " HTTP/1.0\r\n", headers, "\r\n");
}

std::string PostRequest(const std::string& path, const std::string& body) {
  return absl::StrCat("POST ", path, " HTTP/1.0\r\nContent-Length: ", body.size(), "\r\n\r\n", body);
}

Exchange::Exchange(const Route& route, std::string request, int timeout_ms)
    : route_(route),
      request_(std::move(request)),
      deadline_(std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms)),
      step_(route.proxy.port ? Step::kSocksMethod : Step::kReply),
      unsent_(route.proxy.port ? std::string("\x05\x01\x02", 3) : request_) {
  const Endpoint& first = route_.proxy.port ? route_.proxy : route_.server;
  descriptor_ = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const sockaddr_in address = first.Socket();
  if (descriptor_ < 0 ||
      (connect(descriptor_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 && errno != EINPROGRESS)) {
    status_ = absl::UnavailableError(absl::StrCat(first.ToString(), ": ", strerror(errno)));
  }
}

Exchange::~Exchange() {
  if (descriptor_ >= 0) close(descriptor_);
}

short Exchange::wanted() const { return static_cast<short>(unsent_.empty() ? POLLIN : POLLIN | POLLOUT); }

int Exchange::MillisecondsLeft() const {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline_ - std::chrono::steady_clock::now());
  return static_cast<int>(std::max<std::int64_t>(0, left.count()));
}

bool Exchange::End(const absl::Status& status) {
  status_ = status;
  return true;
}

bool Exchange::Advance(short ready) {
  if (!status_.ok()) return true;
  const auto failed = [&] { return End(absl::UnavailableError(absl::StrCat(route_.server.ToString(), ": ", strerror(errno)))); };
  if (ready & POLLOUT && !unsent_.empty()) {
    const ssize_t count = send(descriptor_, unsent_.data(), unsent_.size(), MSG_NOSIGNAL);
    if (count < 0 && errno != EAGAIN && errno != EINTR) return failed();
    if (count > 0) unsent_.erase(0, static_cast<std::size_t>(count));
  }
  if (ready & (POLLIN | POLLERR | POLLHUP)) {
    char buffer[65536];
    const ssize_t count = recv(descriptor_, buffer, sizeof buffer, 0);
    if (count < 0 && errno != EAGAIN && errno != EINTR) return received_.empty() ? failed() : true;
    if (count == 0) return true;
    if (count > 0) received_.append(buffer, static_cast<std::size_t>(count));
    if (step_ != Step::kReply && AdvanceSocks()) return true;
  }
  if (MillisecondsLeft() == 0) return End(absl::DeadlineExceededError(absl::StrCat(route_.server.ToString(), ": no reply in time")));
  return false;
}

// The steps of SOCKS 5 (RFC 1928, RFC 1929), each awaited: tor reads no further than one of them at a time.
bool Exchange::AdvanceSocks() {
  if (step_ == Step::kSocksMethod && received_.size() >= 2) {
    if (received_[1] != 2) return End(absl::UnavailableError("the proxy wants another login"));
    received_.erase(0, 2);
    unsent_ = absl::StrCat(std::string("\x01", 1), std::string(1, static_cast<char>(route_.user.size())), route_.user,
                           std::string("\x01-", 2));
    step_ = Step::kSocksUser;
  }
  if (step_ == Step::kSocksUser && received_.size() >= 2) {
    received_.erase(0, 2);
    const sockaddr_in target = route_.server.Socket();
    unsent_ = std::string("\x05\x01\x00\x01", 4);
    unsent_.append(reinterpret_cast<const char*>(&target.sin_addr), 4);
    unsent_.append(reinterpret_cast<const char*>(&target.sin_port), 2);
    step_ = Step::kSocksConnect;
  }
  if (step_ == Step::kSocksConnect && received_.size() >= 10) {
    if (received_[1] != 0) return End(absl::UnavailableError(absl::StrCat("tor client: stream refused with ", static_cast<int>(received_[1]))));
    received_.erase(0, 10);
    unsent_ = request_;
    step_ = Step::kReply;
  }
  return false;
}

absl::StatusOr<HttpReply> Exchange::Finish() {
  if (!status_.ok()) return status_;
  if (step_ != Step::kReply) return absl::UnavailableError("the proxy closed the connection");
  return ParseReply(received_);
}

absl::StatusOr<HttpReply> Ask(const Route& route, const std::string& request, int timeout_ms) {
  Exchange exchange(route, request, timeout_ms);
  while (true) {
    pollfd waited = {exchange.descriptor(), exchange.wanted(), 0};
    poll(&waited, 1, exchange.MillisecondsLeft());
    if (exchange.Advance(waited.revents)) return exchange.Finish();
  }
}

absl::StatusOr<HttpReply> Ask(const Endpoint& server, const std::string& request, int timeout_ms) {
  return Ask(Route{.server = server}, request, timeout_ms);
}

}  // namespace heaptape::lab
