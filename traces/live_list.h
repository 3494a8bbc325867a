// The live objects in the order of their birth, as a doubly linked list over dense slots.
//
// Eight bytes an object. Node 0 is the list's end on both sides, node n is slot n - 1. Freed slots are
// chained and taken again last in, first out. Indices from outside must pass IsLive() first.

#ifndef HEAPTAPE_TRACES_LIVE_LIST_H_
#define HEAPTAPE_TRACES_LIVE_LIST_H_

#include <cstddef>
#include <cstdint>

#include "traces/huge_table.h"

namespace heaptape {

class LiveList {
 public:
  using Node = std::uint32_t;
  static constexpr Node kEnd = 0;

  LiveList() { links_.GrowTo(1); }

  Node next(Node node) const { return links_[node].next; }
  Node prev(Node node) const { return links_[node].prev; }
  Node newest() const { return links_[0].prev; }
  Node oldest() const { return links_[0].next; }
  bool IsLive(Node node) const { return node != kEnd && node < used_ && links_[node].prev != kFreed; }
  std::uint32_t slot_count() const { return used_ - 1; }  // ever in use at once
  std::uint32_t size() const { return size_; }
  Node free_head() const { return free_; }  // its chain goes on with next()

  // Hints that a live node, which the second takes for granted, will be removed soon: first its own links are fetched, some removals later its neighbours'.
  void Prefetch(Node node) const { __builtin_prefetch(&links_[node]); }
  void PrefetchNeighbours(Node node) const {
    __builtin_prefetch(&links_[links_[node].prev]);
    __builtin_prefetch(&links_[links_[node].next]);
  }

  // Makes room for `more` objects, so that PushUnchecked() needs no check of its own.
  void Reserve(std::size_t more) { links_.GrowTo(used_ + more); }
  Node Push() {
    if (free_ == kEnd && used_ == links_.size()) Reserve(1);
    return PushUnchecked();
  }
  [[gnu::always_inline]] Node PushUnchecked() {
    Node node = free_;
    if (node != kEnd) free_ = links_[node].next; else node = used_++;
    Append(node);
    return node;
  }
  void Remove(Node node) {
    const Links links = links_[node];
    links_[links.prev].next = links.next;
    links_[links.next].prev = links.prev;
    links_[node] = {kFreed, free_};
    free_ = node;
    --size_;
  }

  // For checkpoints: builds the list from nothing. Every node below slots + 1 must come once, either live
  // (in order of birth) or free (the first to be taken again last).
  void Restart(std::uint32_t slots) {
    links_ = HugeTable<Links>();
    links_.GrowTo(std::size_t{slots} + 1);
    for (Links& links : links_) links = {kUnset, 0};
    links_[0] = {0, 0};
    used_ = slots + 1;
    size_ = 0;
    free_ = kEnd;
  }
  bool RestoreLive(Node node) {
    if (node == kEnd || node >= used_ || links_[node].prev != kUnset) return false;
    Append(node);
    return true;
  }
  bool RestoreFree(Node node) {
    if (node == kEnd || node >= used_ || links_[node].prev != kUnset) return false;
    links_[node] = {kFreed, free_};
    free_ = node;
    return true;
  }

 private:
  struct Links {
    std::uint32_t prev, next;
  };
  static constexpr std::uint32_t kFreed = ~0u, kUnset = ~0u - 1;

  void Append(Node node) {
    const Node last = links_[0].prev;
    links_[node] = {last, kEnd};
    links_[last].next = node;
    links_[0].prev = node;
    ++size_;
  }

  HugeTable<Links> links_;
  std::uint32_t used_ = 1;
  std::uint32_t size_ = 0;
  Node free_ = kEnd;
};

}  // namespace heaptape

#endif  // HEAPTAPE_TRACES_LIVE_LIST_H_
