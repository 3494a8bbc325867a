#include "traces/lab/file_server.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"

namespace heaptape::lab {
namespace {

struct Connection {
  int descriptor = -1;
  std::string request;
  std::string header;              // of the reply, until it is sent
  std::uint64_t body_left = 0;
  bool replying = false;
};

constexpr std::uint64_t kBodyLimitBytes = 1u << 30;
constexpr std::size_t kRequestLimitBytes = 8192;

class PollingFileServer final : public FileServer {
 public:
  PollingFileServer(int listener, int stop) : listener_(listener), stop_(stop), thread_([this] { Serve(); }) {}
  ~PollingFileServer() override {
    eventfd_write(stop_, 1);
    thread_.join();
    for (const Connection& connection : connections_) close(connection.descriptor);
    close(listener_);
    close(stop_);
  }

 private:
  void Serve() {
    std::vector<pollfd> waited;
    while (true) {
      waited = {{stop_, POLLIN, 0}, {listener_, POLLIN, 0}};
      for (const Connection& connection : connections_) {
        waited.push_back({connection.descriptor, static_cast<short>(connection.replying ? POLLOUT : POLLIN), 0});
      }
      if (poll(waited.data(), waited.size(), -1) < 0) continue;
      if (waited[0].revents) return;
      for (std::size_t i = connections_.size(); i-- > 0;) {
        if (!waited[i + 2].revents || Advance(connections_[i])) continue;
        close(connections_[i].descriptor);
        connections_.erase(connections_.begin() + static_cast<std::ptrdiff_t>(i));
      }
      if (waited[1].revents) {
        const int accepted = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (accepted >= 0) connections_.push_back({.descriptor = accepted});
      }
    }
  }

  // False: the connection is done with.
  bool Advance(Connection& connection) {
    if (!connection.replying) {
      char buffer[4096];
      const ssize_t count = recv(connection.descriptor, buffer, sizeof buffer, 0);
      if (count <= 0) return count < 0 && (errno == EAGAIN || errno == EINTR);
      connection.request.append(buffer, static_cast<std::size_t>(count));
      if (connection.request.find("\r\n\r\n") == std::string::npos) return connection.request.size() < kRequestLimitBytes;
      if (connection.request.compare(0, 5, "GET /") != 0) return false;
      connection.body_left = std::min<std::uint64_t>(std::strtoull(connection.request.c_str() + 5, nullptr, 10), kBodyLimitBytes);
      connection.header = absl::StrCat("HTTP/1.0 200 OK\r\nContent-Length: ", connection.body_left, "\r\n\r\n");
      connection.replying = true;
      return true;
    }
    static const std::string body(65536, 'h');
    const bool in_header = !connection.header.empty();
    const char* data = in_header ? connection.header.data() : body.data();
    const std::size_t size =
        in_header ? connection.header.size() : static_cast<std::size_t>(std::min<std::uint64_t>(connection.body_left, body.size()));
    const ssize_t count = send(connection.descriptor, data, size, MSG_NOSIGNAL);
    if (count < 0) return errno == EAGAIN || errno == EINTR;
    if (in_header) {
      connection.header.erase(0, static_cast<std::size_t>(count));
    } else {
      connection.body_left -= static_cast<std::uint64_t>(count);
    }
    return !connection.header.empty() || connection.body_left > 0;
  }

  int listener_;
  int stop_;
  std::vector<Connection> connections_;
  std::thread thread_;  // last: it uses the others
};

}  // namespace

absl::StatusOr<std::unique_ptr<FileServer>> FileServer::Start(const Endpoint& endpoint) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const int yes = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  const sockaddr_in address = endpoint.Socket();
  if (bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 || listen(listener, 512) != 0) {
    const absl::Status status = absl::UnavailableError(absl::StrCat(endpoint.ToString(), ": cannot listen: ", strerror(errno)));
    close(listener);
    return status;
  }
  return std::make_unique<PollingFileServer>(listener, eventfd(0, EFD_CLOEXEC));
}

}  // namespace heaptape::lab
