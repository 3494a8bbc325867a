// A client's connection to a relay: TLS, tor's link protocol and one circuit of one hop that stays open.
//
// tor clients of the lab are few, and each holds a single connection to a relay; a production guard holds
// hundreds. This is what such a connection costs the relay without a tor process behind each.

#ifndef HEAPTAPE_TRACES_LAB_LINK_H_
#define HEAPTAPE_TRACES_LAB_LINK_H_

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "traces/lab/http.h"

struct ssl_st;
struct ssl_ctx_st;

namespace heaptape::lab {

// What all connections have in common. Outlives them.
class LinkContext {
 public:
  LinkContext();
  ~LinkContext();
  LinkContext(const LinkContext&) = delete;
  LinkContext& operator=(const LinkContext&) = delete;
  ssl_ctx_st* get() const { return context_; }

 private:
  ssl_ctx_st* context_;
};

// Whoever owns it polls descriptor() for wanted() and calls Advance(). One thread at a time.
class Link {
 public:
  Link(const LinkContext& context, const Endpoint& relay, std::chrono::steady_clock::time_point end);
  ~Link();  // closes the connection, and with it the circuit
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  int descriptor() const { return descriptor_; }
  short wanted() const { return wanted_; }
  // False: it is over, its time has come or the relay has ended it.
  bool Advance(short ready);
  // The relay has made the circuit.
  bool established() const { return step_ == Step::kOpen; }

 private:
  enum class Step { kHandshake, kVersions, kNetinfo, kCircuit, kOpen };
  bool Send(const std::string& cells);
  bool Receive();
  bool TakeCells();

  ssl_st* tls_ = nullptr;
  Endpoint relay_;
  std::chrono::steady_clock::time_point end_;
  int descriptor_ = -1;
  short wanted_;
  Step step_ = Step::kHandshake;
  std::string received_;
};

}  // namespace heaptape::lab

#endif  // HEAPTAPE_TRACES_LAB_LINK_H_
