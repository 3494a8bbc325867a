#include "traces/side_records.h"

#include "traces/format.h"

namespace heaptape {

using format::PutVarint;

namespace {

enum RecordType : unsigned { kResident = 1, kTouched = 2, kModule = 3, kStackFrames = 4, kStackSample = 5 };
enum InfoField : unsigned {
  kProgram = 1, kCLibrary, kAllocator, kAllocatorVersion, kAllocatorPath, kAllocatorBuildId, kKernel,
  kHeaptapeVersion, kMemoryBytes, kStartUnixSeconds, kTimeResolution, kCpuCount, kPageBytes, kHugePages,
  kPrivacyLevel, kStackSampleBytes, kSegmentStart, kSegmentNumber
};
// Stacks are named by numbers below this; when all are taken the numbers start again.
constexpr std::uint32_t kMaxStacks = 1u << 16;

}  // namespace

void SideWriter::Record(unsigned type, const std::vector<std::uint8_t>& body) {
  PutVarint(bytes_, type);
  PutVarint(bytes_, body.size());
  bytes_.insert(bytes_.end(), body.begin(), body.end());
}

void SideWriter::Add(const ResidentSample& sample) {
  const std::uint64_t sizes[] = {sample.rss_bytes, sample.anonymous_bytes, sample.non_heap_bytes,
                                 sample.peak_rss_bytes, sample.lazy_free_bytes, sample.huge_page_bytes};
  std::uint64_t all = 0;
  for (const std::uint64_t size : sizes) all |= size;
  const unsigned shift = all % 1024 == 0 ? 10 : 0;
  body_.clear();
  PutVarint(body_, sample.time_ns);
  PutVarint(body_, sample.event_number);
  PutVarint(body_, shift);
  for (const std::uint64_t size : sizes) PutVarint(body_, size >> shift);
  Record(kResident, body_);
}

void SideWriter::Add(const TouchRecord& record) {
  body_.clear();
  PutVarint(body_, record.object);
  PutVarint(body_, static_cast<unsigned>(record.when));
  PutVarint(body_, record.present.size());
  std::uint32_t at = 0;
  for (const PageRange& range : record.present) {
    PutVarint(body_, range.first_page - at);
    PutVarint(body_, range.page_count);
    at = range.first_page + range.page_count;
  }
  Record(kTouched, body_);
}

void SideWriter::Add(std::uint32_t index, const Module& module) {
  body_.clear();
  PutVarint(body_, index);
  format::PutString(body_, module.name);
  format::PutString(body_, module.build_id);
  Record(kModule, body_);
}

void SideWriter::Add(const StackSample& sample) {
  frames_.clear();
  PutVarint(frames_, sample.frames.size());
  for (const StackFrame& frame : sample.frames) {
    PutVarint(frames_, frame.module);
    PutVarint(frames_, frame.offset);
  }
  if (stacks_.size() == kMaxStacks) stacks_.clear();
  const auto [known, is_new] =
      stacks_.try_emplace(format::Checksum(frames_), static_cast<std::uint32_t>(stacks_.size()));
  body_.clear();
  PutVarint(body_, known->second);
  if (is_new) {
    body_.insert(body_.end(), frames_.begin(), frames_.end());
    Record(kStackFrames, body_);
    body_.resize(0);
    PutVarint(body_, known->second);
  }
  PutVarint(body_, sample.object);
  Record(kStackSample, body_);
}

bool SideReader::Add(std::span<const std::uint8_t> section) {
  format::Cursor in(section);
  while (in.remaining() != 0) {
    const std::uint64_t type = in.Varint();
    format::Cursor body(in.Bytes(in.Varint()));
    if (!in.ok()) return false;
    if (type == kResident && (kinds_ & kSideResident)) {
      ResidentSample s;
      s.time_ns = body.Varint();
      s.event_number = body.Varint();
      const std::uint64_t shift = body.Varint();
      if (shift > 63) return false;
      for (std::uint64_t* size : {&s.rss_bytes, &s.anonymous_bytes, &s.non_heap_bytes, &s.peak_rss_bytes,
                                  &s.lazy_free_bytes, &s.huge_page_bytes})
        *size = body.Varint() << shift;
      if (!body.ok() || !Takes(sizeof s)) return false;
      records_.resident.push_back(s);
    } else if (type == kTouched && (kinds_ & kSideTouched)) {
      TouchRecord record;
      record.object = body.Varint();
      const std::uint64_t when = body.Varint();
      const std::uint64_t count = body.Varint();
      if (!body.ok() || when > 1 || count > body.remaining() / 2 || !Takes(sizeof record, count * sizeof(PageRange))) return false;
      record.when = static_cast<TouchRecord::When>(when);
      std::uint64_t at = 0;
      for (std::uint64_t i = 0; i < count; ++i) {
        const std::uint64_t gap = body.Varint(), pages = body.Varint();
        if (!body.ok() || gap > ~0u || pages > ~0u || at + gap + pages > ~0u) return false;
        record.present.push_back({static_cast<std::uint32_t>(at + gap), static_cast<std::uint32_t>(pages)});
        at += gap + pages;
      }
      records_.touched.push_back(std::move(record));
    } else if (type == kModule && (kinds_ & kSideModules)) {
      const std::uint64_t index = body.Varint();
      Module module;
      module.name = body.String();
      module.build_id = body.String();
      if (!body.ok() || index >= kMaxStacks || !Takes(sizeof module, module.name.size() + module.build_id.size())) return false;
      if (records_.modules.size() <= index) records_.modules.resize(index + 1);
      records_.modules[index] = std::move(module);
    } else if (type == kStackFrames && (kinds_ & kSideStacks)) {
      const std::uint64_t id = body.Varint(), count = body.Varint();
      if (!body.ok() || id >= kMaxStacks || count > body.remaining() / 2 || !Takes(sizeof(StackSample), count * sizeof(StackFrame)))
        return false;
      std::vector<StackFrame> frames;
      for (std::uint64_t i = 0; i < count; ++i) {
        const std::uint64_t module = body.Varint();
        frames.push_back({static_cast<std::uint32_t>(module), body.Varint()});
        if (!body.ok() || module > ~0u) return false;
      }
      if (stacks_.size() <= id) stacks_.resize(id + 1);
      stacks_[id] = std::move(frames);
    } else if (type == kStackSample && (kinds_ & kSideStacks)) {
      const std::uint64_t id = body.Varint(), object = body.Varint();
      if (!body.ok()) return false;
      // Its frames may have been lost with a damaged block.
      if (id >= stacks_.size() || stacks_[id].empty()) continue;
      if (!Takes(sizeof(StackSample), stacks_[id].size() * sizeof(StackFrame))) return false;
      records_.stacks.push_back({object, stacks_[id]});
    }
  }
  return true;
}

void EncodeInfo(const TraceInfo& info, std::vector<std::uint8_t>& out) {
  const auto text = [&out](unsigned field, const std::string& value) {
    if (value.empty()) return;
    PutVarint(out, field);
    format::PutString(out, value);
  };
  const auto number = [&out](unsigned field, std::uint64_t value) {
    if (value == 0) return;
    std::vector<std::uint8_t> body;
    PutVarint(body, value);
    PutVarint(out, field);
    PutVarint(out, body.size());
    out.insert(out.end(), body.begin(), body.end());
  };
  text(kProgram, info.program);
  text(kCLibrary, info.c_library);
  text(kAllocator, info.allocator);
  text(kAllocatorVersion, info.allocator_version);
  text(kAllocatorPath, info.allocator_path);
  text(kAllocatorBuildId, info.allocator_build_id);
  text(kKernel, info.kernel);
  text(kHeaptapeVersion, info.heaptape_version);
  number(kMemoryBytes, info.memory_bytes);
  number(kStartUnixSeconds, info.start_unix_seconds);
  number(kTimeResolution, info.time_resolution_ns);
  number(kCpuCount, info.cpu_count);
  number(kPageBytes, info.page_bytes);
  number(kHugePages, static_cast<std::uint64_t>(info.huge_pages));
  number(kPrivacyLevel, info.privacy_level);
  number(kStackSampleBytes, info.stack_sample_bytes);
  number(kSegmentStart, info.segment_start_ns);
  number(kSegmentNumber, info.segment_number);
}

bool DecodeInfo(std::span<const std::uint8_t> bytes, TraceInfo& info) {
  info = {};
  format::Cursor in(bytes);
  while (in.remaining() != 0) {
    const std::uint64_t field = in.Varint();
    const std::span<const std::uint8_t> body = in.Bytes(in.Varint());
    if (!in.ok()) return false;
    const std::string text(reinterpret_cast<const char*>(body.data()), body.size());
    format::Cursor value(body);
    switch (field) {
      case kProgram: info.program = text; break;
      case kCLibrary: info.c_library = text; break;
      case kAllocator: info.allocator = text; break;
      case kAllocatorVersion: info.allocator_version = text; break;
      case kAllocatorPath: info.allocator_path = text; break;
      case kAllocatorBuildId: info.allocator_build_id = text; break;
      case kKernel: info.kernel = text; break;
      case kHeaptapeVersion: info.heaptape_version = text; break;
      case kMemoryBytes: info.memory_bytes = value.Varint(); break;
      case kStartUnixSeconds: info.start_unix_seconds = value.Varint(); break;
      case kTimeResolution: info.time_resolution_ns = value.Varint(); break;
      case kCpuCount: info.cpu_count = static_cast<std::uint32_t>(value.Varint()); break;
      case kPageBytes: info.page_bytes = static_cast<std::uint32_t>(value.Varint()); break;
      case kHugePages: info.huge_pages = static_cast<HugePages>(value.Varint() & 3); break;
      case kPrivacyLevel: info.privacy_level = static_cast<std::uint8_t>(value.Varint()); break;
      case kStackSampleBytes: info.stack_sample_bytes = value.Varint(); break;
      case kSegmentStart: info.segment_start_ns = value.Varint(); break;
      case kSegmentNumber: info.segment_number = value.Varint(); break;
      default: break;  // a later version's
    }
    if (!value.ok()) return false;
  }
  return true;
}

}  // namespace heaptape
