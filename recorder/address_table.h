// From the addresses of live blocks to their slots: an open table of 16-byte entries, so that a look takes one cache line, and
// one that is fetched ahead takes none. Addresses are any but 0. One thread.

#ifndef HEAPTAPE_RECORDER_ADDRESS_TABLE_H_
#define HEAPTAPE_RECORDER_ADDRESS_TABLE_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "traces/huge_pages.h"

namespace heaptape {

class AddressTable {
 public:
  struct Entry {
    std::uint64_t address = 0;  // 0: empty
    std::uint32_t slot = 0;
  };

  std::size_t size() const { return size_; }
  // A hint that the address will be looked for soon.
  void Prefetch(std::uint64_t address) const { __builtin_prefetch(&entries_[Home(address)]); }
  // Null where it is not there. Valid, as what Insert() returns, until the next call that is not const.
  const Entry* Find(std::uint64_t address) const {
    const Entry& entry = entries_[Place(address)];
    return entry.address != 0 ? &entry : nullptr;
  }
  // The entry of the address, and whether it is new: its slot is then to be set.
  std::pair<Entry*, bool> Insert(std::uint64_t address) {
    std::size_t place = Place(address);
    if (entries_[place].address != 0) return {&entries_[place], false};
    if (++size_ * 3 > entries_.size() * 2) {
      Grow();
      place = Place(address);
    }
    entries_[place].address = address;
    return {&entries_[place], true};
  }
  // `entry` is one that Find() or Insert() returned.
  void Erase(const Entry* entry) {
    const std::size_t mask = entries_.size() - 1;
    auto hole = static_cast<std::size_t>(entry - entries_.data());
    // What was put behind for want of room moves up, so that no search ends too early.
    for (std::size_t at = (hole + 1) & mask; entries_[at].address != 0; at = (at + 1) & mask) {
      const std::size_t home = Home(entries_[at].address);
      if (((at - home) & mask) < ((at - hole) & mask)) continue;
      entries_[hole] = entries_[at];
      hole = at;
    }
    entries_[hole].address = 0;
    --size_;
  }
  // Calls `each` with every entry, in no order; it may set slots.
  template <typename Each>
  void ForEach(Each each) {
    for (Entry& entry : entries_)
      if (entry.address != 0) each(entry);
  }

 private:
  static constexpr std::size_t kFirstEntries = 1024;

  // Fibonacci hashing: blocks beside one another come to lie far apart.
  std::size_t Home(std::uint64_t address) const { return address * 0x9e3779b97f4a7c15u >> shift_; }
  // Where it is, or would be.
  std::size_t Place(std::uint64_t address) const {
    const std::size_t mask = entries_.size() - 1;
    std::size_t at = Home(address);
    while (entries_[at].address != 0 && entries_[at].address != address) at = (at + 1) & mask;
    return at;
  }
  void Grow() {
    HugeVector<Entry> old(entries_.size() * 2);
    old.swap(entries_);
    --shift_;
    for (const Entry& entry : old)
      if (entry.address != 0) entries_[Place(entry.address)] = entry;
  }

  HugeVector<Entry> entries_ = HugeVector<Entry>(kFirstEntries);
  unsigned shift_ = 64 - std::countr_zero(kFirstEntries);
  std::size_t size_ = 0;
};

}  // namespace heaptape

#endif  // HEAPTAPE_RECORDER_ADDRESS_TABLE_H_
