#include "traces/checkpoint.h"

#include <array>

#include "absl/container/flat_hash_map.h"
#include "traces/format.h"

namespace heaptape {

using format::PutVarint;
using format::UnZigZag;
using format::ZigZag;

namespace {

enum Column : unsigned { kThreads, kRequests, kRequestOf, kSlots, kNumbers, kFreeSlots, kColumns };

}  // namespace

void EncodeCheckpoint(const Checkpoint& checkpoint, std::vector<std::uint8_t>& out) {
  std::array<std::vector<std::uint8_t>, kColumns> columns;
  std::uint64_t last = 0;
  for (const std::uint16_t thread : checkpoint.threads) {
    PutVarint(columns[kThreads], thread - last);
    last = thread;
  }
  // Requests are numbered as they come; a number one beyond the last known one brings a new request.
  absl::flat_hash_map<std::pair<std::uint64_t, unsigned>, std::uint64_t> known;
  std::uint64_t next_number = 0;
  std::int64_t next_slot = 0;
  for (const CheckpointObject& object : checkpoint.objects) {
    const unsigned request = static_cast<unsigned>(object.op) | unsigned{object.log2_alignment} << 4;
    const auto [found, is_new] = known.try_emplace({object.size, request}, known.size());
    if (is_new) {
      PutVarint(columns[kRequests], request);
      PutVarint(columns[kRequests], object.size);
    }
    PutVarint(columns[kRequestOf], found->second);
    PutVarint(columns[kSlots], ZigZag(std::int64_t{object.slot} - next_slot));
    next_slot = std::int64_t{object.slot} + 1;
    PutVarint(columns[kNumbers], object.number - next_number);
    next_number = object.number + 1;
  }
  next_slot = 0;
  for (const std::uint32_t slot : checkpoint.free_slots) {
    PutVarint(columns[kFreeSlots], ZigZag(std::int64_t{slot} - next_slot));
    next_slot = std::int64_t{slot} - 1;
  }
  PutVarint(out, checkpoint.slot_count);
  PutVarint(out, checkpoint.objects.size());
  for (const auto& column : columns) PutVarint(out, column.size());
  for (const auto& column : columns) out.insert(out.end(), column.begin(), column.end());
}

absl::Status DecodeCheckpoint(std::span<const std::uint8_t> bytes, Checkpoint& checkpoint) {
  const absl::Status bad = absl::DataLossError("a checkpoint that makes no sense");
  checkpoint = {};
  format::Cursor in(bytes);
  const std::uint64_t slot_count = in.Varint(), object_count = in.Varint();
  if (slot_count > format::kMaxCheckpointSlots || object_count > slot_count) return bad;
  std::array<std::uint64_t, kColumns> lengths;
  for (auto& length : lengths) length = in.Varint();
  std::vector<format::Cursor> columns;
  columns.reserve(lengths.size());
  for (const std::uint64_t length : lengths) columns.emplace_back(in.Bytes(length));
  // Each object and each free slot has at least one byte, which bounds what is allocated below.
  if (!in.ok() || in.remaining() != 0 || lengths[kSlots] < object_count ||
      lengths[kFreeSlots] < slot_count - object_count)
    return bad;
  checkpoint.slot_count = static_cast<std::uint32_t>(slot_count);

  std::uint64_t thread = 0;
  while (columns[kThreads].remaining() != 0) {
    const std::uint64_t more = columns[kThreads].Varint();
    if (more > 0xffff || (thread += more) > 0xffff) return bad;
    checkpoint.threads.push_back(static_cast<std::uint16_t>(thread));
  }
  std::vector<CheckpointObject> requests;
  while (columns[kRequests].remaining() != 0) {
    const std::uint64_t request = columns[kRequests].Varint(), size = columns[kRequests].Varint();
    CheckpointObject object;
    object.op = static_cast<Op>(request & 0xf);
    object.log2_alignment = static_cast<std::uint8_t>(request >> 4 & 0x3f);
    object.size = size;
    if (request > 0x3ff || object.op == Op::kFree || object.op > Op::kPvalloc) return bad;
    requests.push_back(object);
  }
  checkpoint.objects.reserve(object_count);
  std::uint64_t number = 0;
  std::int64_t slot = 0;
  for (std::uint64_t i = 0; i < object_count; ++i) {
    const std::uint64_t request = columns[kRequestOf].Varint();
    if (request >= requests.size()) return bad;
    CheckpointObject object = requests[request];
    const std::int64_t step = UnZigZag(columns[kSlots].Varint());
    if (step < -std::int64_t{format::kMaxLiveObjects} || step > std::int64_t{format::kMaxLiveObjects}) return bad;
    slot += step;
    if (slot < 0 || slot >= static_cast<std::int64_t>(slot_count)) return bad;
    object.slot = static_cast<std::uint32_t>(slot++);
    number += columns[kNumbers].Varint();
    object.number = number++;
    checkpoint.objects.push_back(object);
  }
  slot = 0;
  for (std::uint64_t i = object_count; i < slot_count; ++i) {
    const std::int64_t step = UnZigZag(columns[kFreeSlots].Varint());
    if (step < -std::int64_t{format::kMaxLiveObjects} || step > std::int64_t{format::kMaxLiveObjects}) return bad;
    slot += step;
    if (slot < 0 || slot >= static_cast<std::int64_t>(slot_count)) return bad;
    checkpoint.free_slots.push_back(static_cast<std::uint32_t>(slot--));
  }
  for (const auto& column : columns)
    if (!column.ok() || column.remaining() != 0) return bad;
  return absl::OkStatus();
}

}  // namespace heaptape
