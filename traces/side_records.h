// The side section of an events block: what is known beside the events (FORMAT.md, "Side records").
//
// Sections can be read without decoding events, and each by itself but for stacks, whose frames are
// written once and then named by a number.

#ifndef HEAPTAPE_TRACES_SIDE_RECORDS_H_
#define HEAPTAPE_TRACES_SIDE_RECORDS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "traces/trace_info.h"

namespace heaptape {

class SideWriter {
 public:
  void Add(const ResidentSample& sample);
  void Add(const TouchRecord& record);
  void Add(std::uint32_t index, const Module& module);
  void Add(const StackSample& sample);
  std::vector<std::uint8_t>& bytes() { return bytes_; }

 private:
  void Record(unsigned type, const std::vector<std::uint8_t>& body);

  std::vector<std::uint8_t> bytes_, body_;
  std::vector<std::uint8_t> frames_;
  absl::flat_hash_map<std::uint64_t, std::uint32_t> stacks_;  // by the checksum of their frames
};

struct SideRecords {
  std::vector<ResidentSample> resident;
  std::vector<TouchRecord> touched;
  std::vector<StackSample> stacks;
  std::vector<Module> modules;
};

enum SideKinds : unsigned { kSideResident = 1, kSideTouched = 2, kSideStacks = 4, kSideModules = 8, kSideAll = 15 };

// Appends what sections hold, section by section. Records of unknown type are skipped.
class SideReader {
 public:
  explicit SideReader(unsigned kinds, std::uint64_t memory_limit_bytes = ~std::uint64_t{0})
      : kinds_(kinds), memory_limit_bytes_(memory_limit_bytes) {}
  // False where the section makes no sense, or where the next record would pass the limit: memory_bytes() then is beyond it.
  // What was read before that place stays.
  bool Add(std::span<const std::uint8_t> section);
  SideRecords& records() { return records_; }
  // What records() and the frames of named stacks take, at most.
  std::uint64_t memory_bytes() const { return memory_bytes_; }

 private:
  // Before the memory of one more record is taken; each vector may hold twice what it needs.
  bool Takes(std::uint64_t record_bytes, std::uint64_t list_bytes = 0) {
    constexpr std::uint64_t kHeapBlock = 16;
    memory_bytes_ += 2 * record_bytes + (list_bytes == 0 ? 0 : 2 * list_bytes + kHeapBlock);
    return memory_bytes_ <= memory_limit_bytes_;
  }

  unsigned kinds_;
  std::uint64_t memory_limit_bytes_;
  std::uint64_t memory_bytes_ = 0;
  SideRecords records_;
  std::vector<std::vector<StackFrame>> stacks_;
};

void EncodeInfo(const TraceInfo& info, std::vector<std::uint8_t>& out);
bool DecodeInfo(std::span<const std::uint8_t> bytes, TraceInfo& info);

}  // namespace heaptape

#endif  // HEAPTAPE_TRACES_SIDE_RECORDS_H_
