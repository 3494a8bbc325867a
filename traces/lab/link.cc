#include "traces/lab/link.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"

namespace heaptape::lab {
namespace {

// Of tor's specification of its link protocol, versions 4 and 5.
constexpr std::size_t kPayloadBytes = 509;
constexpr std::size_t kFastKeyBytes = 20;
enum Command : unsigned char { kCreateFastCell = 5, kCreatedFastCell = 6, kVersionsCell = 7, kNetinfoCell = 8, kFirstVariableCell = 128 };

constexpr char kVersions[] = {0, 0, kVersionsCell, 0, 4, 0, 4, 0, 5};  // "4 or 5", with the circuit number of old

// The highest bit says that the connection's opener chose the number.
std::string FixedCell(bool of_circuit, Command command, const std::string& payload) {
  std::string cell(4, '\0');
  if (of_circuit) cell = std::string("\x80\x00\x00\x01", 4);
  cell += static_cast<char>(command);
  cell += payload;
  cell.resize(4 + 1 + kPayloadBytes);
  return cell;
}

std::string Netinfo(const Endpoint& relay) {
  const sockaddr_in address = relay.Socket();
  std::string payload(4, '\0');  // a client tells no time
  payload += std::string("\x04\x04", 2);
  payload.append(reinterpret_cast<const char*>(&address.sin_addr), 4);
  return FixedCell(false, kNetinfoCell, payload);  // and no address of its own
}

std::string CreateFast() {
  std::string key(kFastKeyBytes, '\0');
  RAND_bytes(reinterpret_cast<unsigned char*>(key.data()), static_cast<int>(key.size()));
  return FixedCell(true, kCreateFastCell, key);
}

}  // namespace

LinkContext::LinkContext() : context_(SSL_CTX_new(TLS_client_method())) {
  // Who the relay is matters not: it is ours.
  if (context_) SSL_CTX_set_verify(context_, SSL_VERIFY_NONE, nullptr);
}

LinkContext::~LinkContext() { SSL_CTX_free(context_); }

Link::Link(const LinkContext& context, const Endpoint& relay, std::chrono::steady_clock::time_point end)
    : relay_(relay), end_(end), wanted_(POLLOUT) {
  descriptor_ = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const sockaddr_in address = relay.Socket();
  if (descriptor_ < 0 ||
      (connect(descriptor_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 && errno != EINPROGRESS)) {
    return;
  }
  tls_ = context.get() ? SSL_new(context.get()) : nullptr;
  if (!tls_) return;
  SSL_set_fd(tls_, descriptor_);
  SSL_set_connect_state(tls_);
}

Link::~Link() {
  SSL_free(tls_);
  if (descriptor_ >= 0) close(descriptor_);
}

bool Link::Advance(short ready) {
  if (!tls_ || std::chrono::steady_clock::now() >= end_) return false;
  if (ready == 0) return true;
  if (step_ == Step::kHandshake) {
    const int done = SSL_do_handshake(tls_);
    if (done != 1) {
      const int why = SSL_get_error(tls_, done);
      wanted_ = why == SSL_ERROR_WANT_WRITE ? POLLOUT : POLLIN;
      return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE;
    }
    wanted_ = POLLIN;
    step_ = Step::kVersions;
    if (!Send(std::string(kVersions, sizeof kVersions))) return false;
  }
  return Receive() && TakeCells();
}

// What we have to say is small and said once: a socket that does not take it at once is as good as dead.
bool Link::Send(const std::string& cells) { return SSL_write(tls_, cells.data(), static_cast<int>(cells.size())) == static_cast<int>(cells.size()); }

bool Link::Receive() {
  char buffer[16384];
  while (true) {
    const int count = SSL_read(tls_, buffer, sizeof buffer);
    if (count <= 0) return SSL_get_error(tls_, count) == SSL_ERROR_WANT_READ;
    received_.append(buffer, static_cast<std::size_t>(count));
  }
}

bool Link::TakeCells() {
  std::size_t at = 0;
  while (true) {
    const std::size_t circuit_bytes = step_ == Step::kVersions ? 2 : 4;
    if (received_.size() < at + circuit_bytes + 3) break;
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(received_[at + circuit_bytes + i]); };
    const unsigned char command = byte(0);
    const bool variable = command == kVersionsCell || command >= kFirstVariableCell;
    const std::size_t size = circuit_bytes + 1 + (variable ? 2 + (std::size_t{byte(1)} << 8 | byte(2)) : kPayloadBytes);
    if (received_.size() < at + size) break;
    at += size;
    if (step_ == Step::kVersions && command == kVersionsCell) {
      step_ = Step::kNetinfo;
    } else if (step_ == Step::kNetinfo && command == kNetinfoCell) {
      step_ = Step::kCircuit;
      if (!Send(Netinfo(relay_) + CreateFast())) return false;
    } else if (step_ == Step::kCircuit && command == kCreatedFastCell) {
      step_ = Step::kOpen;
    }
  }
  received_.erase(0, at);
  return true;
}

}  // namespace heaptape::lab
