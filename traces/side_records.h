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
  explicit SideReader(unsigned kinds) : kinds_(kinds) {}
  // False where the section makes no sense; what was read before that place stays.
  bool Add(std::span<const std::uint8_t> section);
  SideRecords& records() { return records_; }

 private:
  unsigned kinds_;
  SideRecords records_;
  std::vector<std::vector<StackFrame>> stacks_;
};

void EncodeInfo(const TraceInfo& info, std::vector<std::uint8_t>& out);
bool DecodeInfo(std::span<const std::uint8_t> bytes, TraceInfo& info);

}  // namespace heaptape

#endif  // HEAPTAPE_TRACES_SIDE_RECORDS_H_
