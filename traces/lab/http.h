// HTTP requests over loopback TCP connections of their own, straight or through a tor client.

#ifndef HEAPTAPE_TRACES_LAB_HTTP_H_
#define HEAPTAPE_TRACES_LAB_HTTP_H_

#include <netinet/in.h>

#include <chrono>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace heaptape::lab {

struct Endpoint {
  std::string address;  // dotted quad
  int port = 0;

  sockaddr_in Socket() const;
  std::string ToString() const;  // "127.64.1.1:7000"
};

struct Route {
  Endpoint server;
  Endpoint proxy;    // SOCKS 5 port of a tor client; port 0: none
  std::string user;  // of the proxy: tor keeps streams of different users on different circuits
};

struct HttpReply {
  int status = 0;
  std::string headers;
  std::string body;
};

// "GET path HTTP/1.0" with `headers` (each line ended by \r\n).
std::string GetRequest(const std::string& path, const std::string& headers = "");
std::string PostRequest(const std::string& path, const std::string& body);

// One request and its reply without waiting: whoever owns it polls descriptor() for wanted() and calls
// Advance(). One thread at a time.
class Exchange {
 public:
  Exchange(const Route& route, std::string request, int timeout_ms);
  ~Exchange();
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  int descriptor() const { return descriptor_; }
  short wanted() const;
  int MillisecondsLeft() const;
  // True: it is over, and Finish() says how.
  bool Advance(short ready);
  // Unavailable where nobody listens or the proxy refuses, DeadlineExceeded, DataLoss where what came is
  // no HTTP reply or not the whole of one.
  absl::StatusOr<HttpReply> Finish();

 private:
  enum class Step { kSocksMethod, kSocksUser, kSocksConnect, kReply };
  bool End(const absl::Status& status);
  bool AdvanceSocks();

  Route route_;
  std::string request_;
  std::chrono::steady_clock::time_point deadline_;
  int descriptor_ = -1;
  Step step_;
  std::string unsent_;
  std::string received_;
  absl::Status status_;
};

// Waits for the whole exchange.
absl::StatusOr<HttpReply> Ask(const Route& route, const std::string& request, int timeout_ms);
absl::StatusOr<HttpReply> Ask(const Endpoint& server, const std::string& request, int timeout_ms);

}  // namespace heaptape::lab

#endif  // HEAPTAPE_TRACES_LAB_HTTP_H_
