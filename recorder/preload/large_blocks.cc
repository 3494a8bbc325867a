#include "recorder/preload/large_blocks.h"

#include "recorder/preload/chunks.h"
#include "recorder/preload/filters.h"

namespace heaptape {
namespace {

constexpr std::uint64_t kProbePatienceNs = 20'000'000;

// Waiting for probes may take a hundredth of the time, and a quarter of a second for how programs begin.
bool MayAwaitProbe(Region* region) {
  static std::atomic<std::uint64_t> first_ns;
  const std::uint64_t now = Now();
  std::uint64_t first = first_ns.load(memory_order_relaxed);
  if (first == 0) first_ns.store(first = now, memory_order_relaxed);
  return region->writer_state.load(memory_order_relaxed) == WriterState::kRunning &&
         region->big_wait_ns.load(memory_order_relaxed) <= (now - first) / 100 + 250'000'000;
}

// A slot with the question in it; null where none is free.
PageProbe* AskForProbe(Region* region, std::uint64_t ticket, std::uint64_t address, std::uint64_t bytes, ProbePhase asked) {
  for (std::uint32_t i = 0; i < kProbeCount; ++i) {
    PageProbe& probe = region->probes[(ticket + i) % kProbeCount];
    std::uint64_t state = probe.state.load(memory_order_relaxed);
    if (PhaseOf(state) != ProbePhase::kFree) continue;
    const std::uint64_t filling = ProbeState(ticket, ProbePhase::kFilling);
    if (!probe.state.compare_exchange_strong(state, filling, memory_order_acquire)) continue;
    probe.address.store(address, memory_order_relaxed);
    probe.bytes.store(bytes, memory_order_relaxed);
    probe.state.store(ProbeState(ticket, asked), memory_order_release);
    region->probes_asked.fetch_add(1, memory_order_release);
    return &probe;
  }
  return nullptr;
}

// Waits, for a bounded time, until the writer has made the probe. False where it did not. Each step asks whether the
// probe is still this call's: a signal handler may fork in the middle of it, and the writer takes away a probe that
// nobody came for.
bool AwaitProbe(Region* region, PageProbe* probe, std::uint64_t ticket) {
  const std::uint64_t asked = ProbeState(ticket, ProbePhase::kAsked);
  const std::uint64_t start = Now();
  std::uint64_t waited = 0;
  do {
    Sleep(10'000);  // which takes some 60 us; the writer comes as often while it is asked
    waited = Now() - start;
  } while (probe->state.load(memory_order_acquire) == asked && waited < kProbePatienceNs && !WriterDied(region) &&
           region->generation.load(memory_order_relaxed) != 0);
  CountHeld(region, start, start + waited);
  region->big_wait_ns.fetch_add(waited, memory_order_relaxed);

  const std::uint64_t free = ProbeState(ticket, ProbePhase::kFree);
  std::uint64_t state = asked;
  if (probe->state.compare_exchange_strong(state, free, memory_order_acq_rel)) return false;
  if (state != ProbeState(ticket, ProbePhase::kDone) ||
      !probe->state.compare_exchange_strong(state, free, memory_order_acq_rel)) {
    return false;
  }
  region->big_waits.fetch_add(1, memory_order_relaxed);
  return true;
}

// Has the writer probe a block's pages. `stays`: the block will still be there if it comes late. Returns the probe's
// ticket, 0 where there is none.
std::uint64_t ProbePages(Region* region, std::uint64_t address, std::uint64_t bytes, bool stays) {
  CheckForUnseenFilter(region);
  const bool wait = MayAwaitProbe(region);
  std::uint64_t ticket = 0;
  if (wait || stays) {
    ticket = region->probe_tickets.fetch_add(1, memory_order_relaxed) + 1;
    PageProbe* probe = AskForProbe(region, ticket, address, bytes, wait ? ProbePhase::kAsked : ProbePhase::kAskedInPassing);
    if (!probe || (wait && !AwaitProbe(region, probe, ticket))) ticket = 0;
  }
  if (!wait || ticket == 0) region->big_skipped.fetch_add(1, memory_order_relaxed);
  return ticket;
}

}  // namespace

__attribute__((noinline)) void RecordLarge(RawOp op, const void* pointer, std::uint64_t size, std::uint64_t usable,
                                           Extras extras) {
  const auto address = reinterpret_cast<std::uint64_t>(pointer);
  Region* region = process.region.load(memory_order_acquire);
  if (region && record_large.load(memory_order_relaxed) && pointer && region->generation.load(memory_order_relaxed) != 0) {
    const bool stays = op != RawOp::kFree && op != RawOp::kReallocBegin;
    if (stays) region->big_filter[BigFilterIndex(address)].fetch_add(1, memory_order_relaxed);
    extras.probe = ProbePages(region, address, usable, stays);
  }
  RecordSlow(op, address, size, extras);
}

void AwaitWish(Region* region, LastWish wish, std::uint64_t patience_ns) {
  CheckForUnseenFilter(region);
  region->wish.store(wish, memory_order_release);
  const std::uint64_t start = Now();
  const bool finish = wish == LastWish::kFinish;
  while (region->wish_done.load(memory_order_acquire) < wish && Now() - start < patience_ns && !WriterDied(region) &&
         (finish || region->generation.load(memory_order_relaxed) != 0)) {
    Sleep(50'000);
  }
  CountHeld(region, start, Now());
}

}  // namespace heaptape
