#include "traces/trace_reader.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "traces/checkpoint.h"
#include "traces/codec.h"
#include "traces/format.h"
#include "traces/index.h"
#include "traces/memory_limit.h"
#include "traces/parity.h"
#include "traces/side_records.h"

namespace heaptape {
namespace {

using format::BlockHeader;
using format::BlockKind;
using Span = std::span<const std::uint8_t>;

// How many events a restored block holds at most.
constexpr std::size_t kRestoredChunk = 1u << 16;
// zstd's window may be as large as a packed trace uses, and no larger.
constexpr int kMaxWindowLog = 27;
// A live object's place in the decoder's list, and what restoring one from a checkpoint takes for a while.
constexpr std::uint64_t kBytesPerSlot = 8;
constexpr std::uint64_t kBytesToRestore = 72;

class Reader final : public TraceReader {
 public:
  Reader(Span bytes, std::string name, bool mapped, const ReadLimits& limits)
      : bytes_(bytes), name_(std::move(name)), mapped_(mapped), limits_(limits), zstd_(ZSTD_createDCtx()) {
    if (limits_.memory_limit_bytes == 0) limits_.memory_limit_bytes = DefaultMemoryLimit();
    ZSTD_DCtx_setParameter(zstd_, ZSTD_d_windowLogMax, kMaxWindowLog);
  }
  ~Reader() override {
    ZSTD_freeDCtx(zstd_);
    if (mapped_) munmap(const_cast<std::uint8_t*>(bytes_.data()), bytes_.size());
  }

  absl::Status Open() {
    summary_.file_bytes = bytes_.size();
    const bool magic = bytes_.size() >= format::kFileHeadBytes &&
                       std::memcmp(bytes_.data(), format::kFileMagic, sizeof format::kFileMagic) == 0;
    BlockHeader header;
    if (!magic && (bytes_.size() < format::kFileHeadBytes ||
                   !format::ParseHeader(bytes_.subspan(format::kFileHeadBytes), header)))
      return absl::InvalidArgumentError(absl::StrCat(name_, ": not a heaptape trace; make one with heaptape record"));
    if (!magic) {
      Damage(0, "the first bytes are damaged");
    } else if (const unsigned major = bytes_[8] | bytes_[9] << 8; major < 1 || major > format::kVersionMajor) {
      return absl::InvalidArgumentError(absl::StrFormat("%s: written in version %d of the format; this program reads versions 1 to %d",
                                                        name_, major, format::kVersionMajor));
    }
    Repair();
    Scan();
    if (!seen_info_) {
      if (summary_.event_count == 0 && summary_.block_count == 0)
        return absl::DataLossError(absl::StrCat(name_, ": holds no readable block"));
      Loss(format::kFileHeadBytes, "what the trace says of its program and machine is lost");
    }
    resolution_ns_ = std::max<std::uint64_t>(info_.time_resolution_ns, 1);
    summary_.duration_ns = last_step_ * resolution_ns_;
    Digest();
    offset_ = format::kFileHeadBytes;
    // No more than a trace can hold, whatever it says.
    summary_.peak_live_objects = std::min<std::uint64_t>(summary_.peak_live_objects, format::kMaxLiveObjects);
    return CheckMemory(summary_.peak_live_objects, std::min(summary_.object_count, readable_events_));
  }

  const TraceInfo& info() const override { return info_; }
  const TraceSummary& summary() const override { return summary_; }
  const std::vector<std::string>& damage() const override { return damage_; }
  const std::string& loss() const override { return loss_; }

  absl::StatusOr<EventBlock> Next() override {
    while (true) {
      if (restore_at_ < restore_.size()) return Restored();
      BlockHeader header;
      if (!FindBlock(offset_, header)) return AtEnd();
      const std::uint64_t here = offset_;
      GiveBackBehind(here);
      offset_ += header.block_bytes();
      const Span payload = Payload(here, header);
      if (header.kind == BlockKind::kCheckpoint && lost_) {
        const absl::StatusOr<bool> restored = Restore(here, header, payload);
        if (!restored.ok()) return restored.status();
      } else if (header.kind == BlockKind::kEvents && header.fields.event_count > 0) {
        if (!lost_ && header.fields.first_event != next_event_) lost_ = true;
        if (lost_) continue;
        if (format::Checksum(payload) != header.payload_checksum) {
          Loss(here, "checksum mismatch");
          lost_ = true;
          continue;
        }
        const absl::Status status = Decode(header, payload);
        const absl::Status memory = CheckMemory(decoder_.objects().slot_count(), header.fields.first_object + decoded_.size());
        if (!memory.ok()) return memory;
        if (!status.ok()) {
          Loss(here, std::string(status.message()));
          lost_ = true;
          if (decoded_.empty()) continue;
        }
        EventBlock block;
        block.events = decoded_;
        block.first_event = header.fields.first_event;
        block.first_object = header.fields.first_object;
        block.start_time_ns = header.fields.start_step * resolution_ns_;
        block.end_time_ns = (header.fields.start_step + header.fields.step_count) * resolution_ns_;
        block.unmatched_frees = header.fields.unmatched_frees;
        next_event_ = block.first_event + block.events.size();
        now_ns_ = block.end_time_ns;
        return block;
      }
    }
  }

  absl::Status Seek(std::uint64_t event) override {
    return GoTo(std::upper_bound(checkpoints_.begin(), checkpoints_.end(), event,
                                 [](std::uint64_t e, const Place& place) { return e < place.event; }));
  }

  absl::Status SeekTime(std::uint64_t time_ns) override {
    return GoTo(std::partition_point(checkpoints_.begin(), checkpoints_.end(), [&](const Place& place) {
      return place.step * resolution_ns_ < time_ns;
    }));
  }

  absl::StatusOr<std::vector<ResidentSample>> ReadResident() override { return ReadSide(kSideResident, &SideRecords::resident); }
  absl::StatusOr<std::vector<TouchRecord>> ReadTouched() override { return ReadSide(kSideTouched, &SideRecords::touched); }
  absl::StatusOr<std::vector<StackSample>> ReadStacks() override { return ReadSide(kSideStacks, &SideRecords::stacks); }
  absl::StatusOr<std::vector<Module>> ReadModules() override { return ReadSide(kSideModules, &SideRecords::modules); }

 private:
  struct Place {
    std::uint64_t offset, event, step;
  };

  // To the last readable checkpoint before `checkpoint`, or to the start.
  absl::Status GoTo(std::vector<Place>::const_iterator checkpoint) {
    restore_.clear();
    restore_at_ = 0;
    decoder_ = EventDecoder();
    lost_ = false;
    next_event_ = 0;
    offset_ = format::kFileHeadBytes;
    now_ns_ = 0;
    while (checkpoint != checkpoints_.begin()) {
      --checkpoint;
      BlockHeader header;
      if (!format::ParseHeader(bytes_.subspan(checkpoint->offset), header)) continue;
      const Span payload = Payload(checkpoint->offset, header);
      seeking_ = true;
      const absl::StatusOr<bool> restored = Restore(checkpoint->offset, header, payload);
      seeking_ = false;
      if (!restored.ok()) return restored.status();
      if (!*restored) continue;
      offset_ = checkpoint->offset + header.block_bytes();
      break;
    }
    return absl::OkStatus();
  }

  // Whether so many live objects, and so many ever started, may be read on: their tables here and at the caller's, the side
  // records, and `more` bytes.
  absl::Status CheckMemory(std::uint64_t live_objects, std::uint64_t objects, std::uint64_t more = 0) const {
    const std::uint64_t side_bytes = SideBytes() + more;
    // In floating point: the numbers are the file's, and their product must not wrap around.
    const double needed = static_cast<double>(live_objects) * static_cast<double>(kBytesPerSlot + limits_.bytes_per_live_object) +
                          static_cast<double>(objects) * static_cast<double>(limits_.bytes_per_object) + static_cast<double>(side_bytes);
    if (needed <= static_cast<double>(limits_.memory_limit_bytes)) return absl::OkStatus();
    std::string what = absl::StrCat(live_objects, " live objects");
    if (limits_.bytes_per_object != 0) absl::StrAppend(&what, " of ", objects);
    if (side_bytes != 0) absl::StrAppend(&what, " and what is recorded beside them");
    return OverMemoryLimit(name_, needed, what, limits_.memory_limit_bytes);
  }
  std::uint64_t SideBytes() const {
    std::uint64_t sum = 0;
    for (const auto& [kind, bytes] : side_bytes_) sum += bytes;
    return sum;
  }

  // Pages of the file count as this process's memory while they are mapped: those far behind `offset` are given back, so
  // that a long trace takes no more than a short one. They come again when they are read again.
  void GiveBackBehind(std::uint64_t offset) {
    constexpr std::uint64_t kStep = 16 << 20;
    if (offset < given_back_) given_back_ = 0;
    if (!mapped_ || offset - given_back_ < kStep) return;
    const std::uint64_t end = offset / kStep * kStep;
    (void)madvise(const_cast<std::uint8_t*>(bytes_.data()) + given_back_, end - given_back_, MADV_DONTNEED);
    given_back_ = end;
  }

  std::string Sentence(std::uint64_t offset, const std::string& what) const {
    return absl::StrFormat("%s: byte %d: %s", name_, offset, what);
  }

  // Keeps the sentences in the order of the file, one for each place.
  void Damage(std::uint64_t offset, const std::string& what) {
    const auto [at, is_new] = damaged_.insert(offset);
    if (is_new) damage_.insert(damage_.begin() + std::distance(damaged_.begin(), at), Sentence(offset, what));
  }

  // The same where it cost something.
  void Loss(std::uint64_t offset, const std::string& what) {
    if (loss_.empty() || offset < loss_offset_) {
      loss_ = Sentence(offset, what);
      loss_offset_ = offset;
    }
    Damage(offset, what);
  }

  // The block at `offset`, or the first one behind it: sets `offset` to it. False at the end of the file.
  bool FindBlock(std::uint64_t& offset, BlockHeader& header) {
    const std::uint64_t start = offset;
    while (offset + format::kFixedHeaderBytes <= bytes_.size()) {
      if (const auto repaired = repaired_.find(offset); repaired != repaired_.end())
        return format::ParseHeader(repaired->second, header);
      if (format::ParseHeader(bytes_.subspan(offset), header) && header.block_bytes() <= bytes_.size() - offset)
        return true;
      if (offset + format::kTrailerBytes == bytes_.size()) break;
      const void* found = memmem(bytes_.data() + offset + 1, bytes_.size() - offset - 1, format::kBlockMagic,
                                 sizeof format::kBlockMagic);
      if (found == nullptr) break;
      offset = static_cast<std::uint64_t>(static_cast<const std::uint8_t*>(found) - bytes_.data());
    }
    offset = start;
    return false;
  }

  // Of a block that FindBlock() found.
  Span Payload(std::uint64_t offset, const BlockHeader& header) const {
    const auto repaired = repaired_.find(offset);
    if (repaired != repaired_.end()) return Span(repaired->second).subspan(header.header_bytes);
    return bytes_.subspan(offset + header.header_bytes, header.payload_bytes);
  }

  // Hops over the whole file: where one of the blocks that a parity block covers is damaged, brings it back. Each
  // covers only what lies behind the last one, so that all of it takes no longer than reading the file.
  void Repair() {
    std::uint64_t offset = format::kFileHeadBytes;
    std::uint64_t from = offset;
    std::map<std::uint64_t, std::uint64_t> good;  // since `from`: bytes by offset
    std::vector<CoveredBlock> covered;
    Span parity;
    BlockHeader header;
    bool all_whole = true;
    while (FindBlock(offset, header)) {
      GiveBackBehind(offset);
      const Span payload = Payload(offset, header);
      const bool whole = format::Checksum(payload) == header.payload_checksum;
      all_whole = all_whole && whole;
      if (whole && header.kind == BlockKind::kEvents) good.emplace(offset, header.block_bytes());
      if (whole && header.kind == BlockKind::kParity && DecodeParity(payload, offset, from, covered, parity)) {
        const auto is_good = [&](const CoveredBlock& block) {
          const auto found = good.find(block.offset);
          return found != good.end() && found->second == block.bytes;
        };
        const auto damaged = std::find_if_not(covered.begin(), covered.end(), is_good);
        if (damaged != covered.end() && std::find_if_not(damaged + 1, covered.end(), is_good) == covered.end()) {
          std::vector<std::uint8_t> sum(parity.begin(), parity.end());
          for (const CoveredBlock& block : covered)
            if (block != *damaged) AddParity(bytes_.subspan(block.offset, block.bytes), sum.data());
          sum.resize(damaged->bytes);
          BlockHeader again;
          if (format::ParseHeader(sum, again) && again.kind == BlockKind::kEvents && again.block_bytes() == sum.size() &&
              format::Checksum(Span(sum).subspan(again.header_bytes)) == again.payload_checksum) {
            repaired_.emplace(damaged->offset, std::move(sum));
            Damage(damaged->offset, "a damaged block, repaired by parity: nothing is lost");
          }
        }
      }
      offset += header.block_bytes();
      if (whole && header.kind == BlockKind::kParity) {
        from = offset;
        good.clear();
      }
    }
    summary_.repaired_blocks = repaired_.size();
    payloads_checked_ = all_whole && repaired_.empty();
  }

  // Hops over the whole file once more: checks every checksum, unless Repair() found the very same blocks and all of
  // them whole; gathers the figures and the checkpoints.
  void Scan() {
    std::uint64_t offset = format::kFileHeadBytes;
    std::uint64_t end = offset;
    std::uint64_t expected_event = 0;
    std::uint64_t index_offset = 0;
    bool lost = false;
    BlockHeader header;
    const auto lose = [&](std::uint64_t until) {
      if (until > expected_event) summary_.damaged_events += until - expected_event;
    };
    while (FindBlock(offset, header)) {
      GiveBackBehind(offset);
      if (offset != end) {
        Loss(end, absl::StrFormat("%d bytes are no block", offset - end));
      }
      const Span payload = Payload(offset, header);
      const bool good = payloads_checked_ || format::Checksum(payload) == header.payload_checksum;
      if (!good) {
        // Whatever else there is stands twice, or helps reading alone.
        if (header.kind == BlockKind::kEvents) Loss(offset, "checksum mismatch");
        else Damage(offset, "checksum mismatch");
      }
      ++summary_.block_count;
      const format::BlockFields& fields = header.fields;
      if (format::HasFields(header.kind)) Gather(fields);
      switch (header.kind) {
        case BlockKind::kInfo:
          if (good && !seen_info_) seen_info_ = DecodeInfo(payload, info_);
          break;
        case BlockKind::kEvents:
          if (fields.event_count == 0) break;
          readable_events_ += fields.event_count;
          if (!lost && good && fields.first_event != expected_event) {
            Loss(offset, fields.first_event > expected_event
                             ? absl::StrFormat("%d events before this block are missing", fields.first_event - expected_event)
                             : "this block does not follow the one before it");
          }
          if (!lost && (!good || fields.first_event != expected_event)) lost = true;
          if (!lost) expected_event = fields.first_event + fields.event_count;
          break;
        case BlockKind::kCheckpoint:
          if (!good) break;
          checkpoints_.push_back({offset, fields.first_event, fields.start_step});
          ++summary_.checkpoint_count;
          if (lost) {
            lose(fields.first_event);
            expected_event = fields.first_event;
            lost = false;
          }
          break;
        case BlockKind::kIndex:
          if (good) ReadIndex(payload, offset + header.block_bytes());
          index_offset = offset;
          break;
        default:
          break;
      }
      offset += header.block_bytes();
      end = offset;
    }
    if (!lost && expected_event < summary_.event_count)
      Loss(end, absl::StrFormat("the last %d events are missing", summary_.event_count - expected_event));
    lose(summary_.event_count);
    const std::uint64_t tail = bytes_.size() - end;
    if (tail == format::kTrailerBytes && summary_.has_index) {
      if (std::memcmp(bytes_.data() + end, format::kTrailerMagic, 8) != 0 || format::GetU64(bytes_.data() + end + 8) != index_offset)
        Damage(end, "the last bytes are damaged; nothing is lost by that");
    } else if (tail != 0) {
      Loss(end, absl::StrFormat("the last %d bytes are no complete block", tail));
    }
    std::sort(checkpoints_.begin(), checkpoints_.end(),
              [](const Place& a, const Place& b) { return a.event < b.event; });
  }

  void Gather(const format::BlockFields& fields) {
    const std::uint64_t events = fields.first_event + fields.event_count;
    if (events >= summary_.event_count) {
      summary_.event_count = events;
      summary_.object_count = fields.first_object + fields.object_count;
      summary_.event_digest = fields.event_digest;
      summary_.unmatched_frees = fields.unmatched_frees;
      recorded_lost_ = fields.lost_events;
    }
    touch_digest_ = fields.touch_digest;
    last_step_ = std::max(last_step_, fields.start_step + fields.step_count);
    summary_.peak_live_objects = std::max(summary_.peak_live_objects, fields.peak_live_objects);
    summary_.peak_live_bytes = std::max(summary_.peak_live_bytes, fields.peak_live_bytes);
    summary_.peak_threads = std::max(summary_.peak_threads, fields.peak_threads);
  }

  void ReadIndex(Span payload, std::uint64_t end) {
    TraceIndex index;
    if (!DecodeIndex(payload, index)) return;
    if (!seen_info_) info_ = index.info;
    seen_info_ = true;
    summary_.has_index = true;
    summary_.complete = index.end != TraceEnd::kDiskFull && end + format::kTrailerBytes == bytes_.size();
    summary_.ended_at_limit = index.end == TraceEnd::kSizeLimit;
  }

  void Digest() {
    summary_.lost_events = summary_.damaged_events + recorded_lost_;
    std::vector<std::uint8_t> content;
    for (const std::uint64_t value :
         {summary_.event_digest, touch_digest_, summary_.event_count, std::uint64_t{info_.cpu_count},
          std::uint64_t{info_.page_bytes}, static_cast<std::uint64_t>(info_.huge_pages)})
      format::PutU64(content, value);
    if (summary_.damaged_events != 0)
      for (const std::uint64_t offset : damaged_) format::PutU64(content, offset);
    const XXH128_hash_t hash = XXH3_128bits(content.data(), content.size());
    summary_.digest = absl::StrFormat("%016x%016x", hash.high64, hash.low64);
  }

  // Sets decoded_, on errors to the events before the place where the block makes no sense.
  absl::Status Decode(const BlockHeader& header, Span payload) {
    decoded_ = {};
    const format::BlockFields& fields = header.fields;
    if (header.flags & format::kFlagRestart) {
      decoder_.Restart();
      ZSTD_DCtx_reset(zstd_, ZSTD_reset_session_only);
    }
    // No writer needs more than this for an event, whatever it is.
    if (fields.raw_bytes > fields.event_count * 32 + 256) return absl::DataLossError("columns are larger than their events");
    raw_.resize(fields.raw_bytes);
    ZSTD_outBuffer out{raw_.data(), raw_.size(), 0};
    ZSTD_inBuffer in{payload.data() + fields.side_bytes, payload.size() - fields.side_bytes, 0};
    while (in.pos < in.size) {
      const std::size_t in_before = in.pos, out_before = out.pos;
      const std::size_t result = ZSTD_decompressStream(zstd_, &out, &in);
      if (ZSTD_isError(result)) return absl::DataLossError(absl::StrCat("zstd: ", ZSTD_getErrorName(result)));
      if (in.pos == in_before && out.pos == out_before) break;
    }
    if (in.pos != in.size || out.pos != out.size) return absl::DataLossError("the columns' size is not as stated");
    const absl::Status status = decoder_.Decode(raw_, fields.event_count, fields.start_step, resolution_ns_);
    decoded_ = decoder_.events();
    return status;
  }

  // Prepares the events that lead from what is alive to what a checkpoint says; false where it is damaged.
  absl::StatusOr<bool> Restore(std::uint64_t here, const BlockHeader& header, Span payload) {
    const format::BlockFields& fields = header.fields;
    if (format::Checksum(payload) != header.payload_checksum) {
      Damage(here, "checksum mismatch");
      return false;
    }
    const unsigned long long size = ZSTD_getFrameContentSize(payload.data(), payload.size());
    if (size != fields.raw_bytes || size > format::kMaxPayloadBytes || size / format::kMaxZstdRatio > payload.size()) {
      Damage(here, "a checkpoint's size is not as stated");
      return false;
    }
    // Each object has a byte in three of its columns.
    const absl::Status memory = CheckMemory(decoder_.objects().slot_count(), 0, size + size / 3 * kBytesToRestore);
    if (!memory.ok()) return memory;
    std::vector<std::uint8_t> raw(fields.raw_bytes);
    const std::size_t done = ZSTD_decompress(raw.data(), raw.size(), payload.data(), payload.size());
    Checkpoint checkpoint;
    if (ZSTD_isError(done) || done != raw.size() || !DecodeCheckpoint(raw, checkpoint).ok()) {
      Damage(here, "a checkpoint that makes no sense");
      return false;
    }
    // Built apart, so that a bad checkpoint leaves the state as it was.
    LiveList objects;
    objects.Restart(checkpoint.slot_count);
    for (const CheckpointObject& object : checkpoint.objects)
      if (!objects.RestoreLive(object.slot + 1)) return Damage(here, "a checkpoint with a slot twice"), false;
    for (const std::uint32_t slot : checkpoint.free_slots)
      if (!objects.RestoreFree(slot + 1)) return Damage(here, "a checkpoint with a slot twice"), false;

    restore_.clear();
    restore_numbers_.clear();
    restore_at_ = 0;
    const auto add = [this](Event event, std::uint64_t number) {
      restore_.push_back(event);
      restore_numbers_.push_back(number);
    };
    constexpr std::uint64_t kNone = ~std::uint64_t{0};
    std::vector<bool>& alive = decoder_.threads();
    const LiveList& old = decoder_.objects();
    if (!seeking_) add({Op::kLost, 0, 0, 0, fields.first_event - std::min(fields.first_event, next_event_)}, kNone);
    for (LiveList::Node node = old.oldest(); node != LiveList::kEnd; node = old.next(node))
      add({Op::kFree, 0, 0, node - 1, 0}, kNone);
    std::vector<bool> wanted(alive.size());
    for (const std::uint16_t thread : checkpoint.threads) {
      if (wanted.size() <= thread) wanted.resize(std::size_t{thread} + 1);
      wanted[thread] = true;
    }
    alive.resize(wanted.size());
    for (std::size_t i = 0; i < wanted.size(); ++i)
      if (alive[i] && !wanted[i]) add({Op::kThreadEnd, 0, static_cast<std::uint16_t>(i), 0, 0}, kNone);
    for (std::size_t i = 0; i < wanted.size(); ++i)
      if (!alive[i] && wanted[i]) add({Op::kThreadStart, 0, static_cast<std::uint16_t>(i), 0, 0}, kNone);
    const std::uint16_t thread = checkpoint.threads.empty() ? 0 : checkpoint.threads.front();
    add({Op::kTime, 0, 0, 0, fields.start_step * resolution_ns_}, kNone);
    for (const CheckpointObject& object : checkpoint.objects) {
      std::uint8_t flags = object.log2_alignment;
      if (object.op == Op::kRealloc || object.op == Op::kReallocArray) flags |= Event::kFresh;
      add({object.op, flags, thread, object.slot, object.size}, object.number);
    }
    alive = std::move(wanted);
    decoder_.Restart();
    decoder_.objects() = std::move(objects);
    lost_ = false;
    next_event_ = fields.first_event;
    restore_first_object_ = fields.first_object;
    restore_unmatched_frees_ = fields.unmatched_frees;
    restore_time_ns_ = fields.start_step * resolution_ns_;
    return true;
  }

  EventBlock Restored() {
    EventBlock block;
    const std::size_t count = std::min(kRestoredChunk, restore_.size() - restore_at_);
    block.events = std::span(restore_).subspan(restore_at_, count);
    block.object_numbers = std::span(restore_numbers_).subspan(restore_at_, count);
    block.restored = true;
    block.first_event = next_event_;
    block.first_object = restore_first_object_;
    block.start_time_ns = now_ns_;
    block.end_time_ns = now_ns_ = restore_time_ns_;
    block.unmatched_frees = restore_unmatched_frees_;
    restore_at_ += count;
    return block;
  }

  EventBlock AtEnd() {
    EventBlock block;
    block.first_event = next_event_;
    block.first_object = summary_.object_count;
    block.start_time_ns = block.end_time_ns = now_ns_;
    if (next_event_ < summary_.event_count) {
      missing_ = {Op::kLost, 0, 0, 0, summary_.event_count - next_event_};
      block.events = std::span(&missing_, 1);
      block.restored = true;
      next_event_ = summary_.event_count;
    }
    return block;
  }

  template <typename Record>
  absl::StatusOr<std::vector<Record>> ReadSide(SideKinds kind, std::vector<Record> SideRecords::*records) {
    side_bytes_.erase(kind);
    const std::uint64_t taken = SideBytes() + decoder_.objects().slot_count() * (kBytesPerSlot + limits_.bytes_per_live_object);
    SideReader side(kind, limits_.memory_limit_bytes - std::min(limits_.memory_limit_bytes, taken));
    std::uint64_t offset = format::kFileHeadBytes;
    BlockHeader header;
    std::vector<std::uint8_t> raw;
    while (FindBlock(offset, header)) {
      const std::uint64_t here = offset;
      GiveBackBehind(here);
      offset += header.block_bytes();
      if (header.kind != BlockKind::kEvents || header.fields.side_bytes == 0) continue;
      const Span payload = Payload(here, header);
      if (format::Checksum(payload) != header.payload_checksum) continue;
      Span section = payload.first(header.fields.side_bytes);
      if (header.flags & format::kFlagSideCompressed) {
        const unsigned long long size = ZSTD_getFrameContentSize(section.data(), section.size());
        if (size == ZSTD_CONTENTSIZE_UNKNOWN || size == ZSTD_CONTENTSIZE_ERROR || size > format::kMaxPayloadBytes ||
            size / format::kMaxZstdRatio > section.size()) {
          Loss(here, "side records that make no sense");
          continue;
        }
        if (const absl::Status memory = CheckMemory(decoder_.objects().slot_count(), 0, size); !memory.ok()) return memory;
        raw.resize(size);
        const std::size_t done = ZSTD_decompress(raw.data(), raw.size(), section.data(), section.size());
        if (ZSTD_isError(done) || done != size) {
          Loss(here, "side records that make no sense");
          continue;
        }
        section = raw;
      }
      const bool sense = side.Add(section);
      side_bytes_[kind] = side.memory_bytes();
      if (const absl::Status memory = CheckMemory(decoder_.objects().slot_count(), 0); !memory.ok()) {
        side_bytes_.erase(kind);
        return memory;
      }
      if (!sense) Loss(here, "side records that make no sense");
    }
    return std::move(side.records().*records);
  }

  const Span bytes_;
  const std::string name_;
  const bool mapped_;
  ReadLimits limits_;
  ZSTD_DCtx* zstd_;
  std::map<SideKinds, std::uint64_t> side_bytes_;  // of the side records that were read last, which the caller keeps

  TraceInfo info_;
  bool seen_info_ = false;
  TraceSummary summary_;
  std::uint64_t resolution_ns_ = 1;
  std::uint64_t last_step_ = 0;
  std::uint64_t touch_digest_ = 0;
  std::uint64_t recorded_lost_ = 0;
  std::uint64_t readable_events_ = 0;  // at most
  std::vector<Place> checkpoints_;
  std::map<std::uint64_t, std::vector<std::uint8_t>> repaired_;  // blocks by offset; in the file they are damaged
  bool payloads_checked_ = false;  // Repair() found nothing to repair and every payload whole
  std::set<std::uint64_t> damaged_;
  std::vector<std::string> damage_;
  std::string loss_;
  std::uint64_t loss_offset_ = 0;

  EventDecoder decoder_;
  std::span<const Event> decoded_;
  std::uint64_t offset_ = 0;
  std::uint64_t given_back_ = 0;  // the file's pages up to there, since the last time it was read from its start
  std::uint64_t next_event_ = 0;
  std::uint64_t now_ns_ = 0;
  bool lost_ = false;     // no event is readable until a checkpoint
  bool seeking_ = false;
  std::vector<std::uint8_t> raw_;
  Event missing_{};
  std::vector<Event> restore_;
  std::vector<std::uint64_t> restore_numbers_;
  std::size_t restore_at_ = 0;
  std::uint64_t restore_first_object_ = 0;
  std::uint64_t restore_time_ns_ = 0;
  std::optional<UnmatchedFrees> restore_unmatched_frees_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<TraceReader>> TraceReader::Open(const std::string& path, const ReadLimits& limits) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) {
    const std::string text = absl::StrCat(path, ": cannot open: ", std::strerror(errno));
    if (errno == ENOENT) return absl::NotFoundError(text);
    return absl::UnavailableError(text);
  }
  struct stat status;
  if (fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size == 0) {
    close(descriptor);
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a heaptape trace; make one with heaptape record"));
  }
  const auto size = static_cast<std::size_t>(status.st_size);
  void* const mapping = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, 0);
  close(descriptor);
  if (mapping == MAP_FAILED) return absl::UnavailableError(absl::StrCat(path, ": cannot map: ", std::strerror(errno)));
  auto reader = std::make_unique<Reader>(Span(static_cast<const std::uint8_t*>(mapping), size), path, true, limits);
  if (absl::Status opened = reader->Open(); !opened.ok()) return opened;
  return reader;
}

absl::StatusOr<std::unique_ptr<TraceReader>> TraceReader::OpenBuffer(std::span<const std::uint8_t> bytes,
                                                                     const std::string& name, const ReadLimits& limits) {
  auto reader = std::make_unique<Reader>(bytes, name, false, limits);
  if (absl::Status opened = reader->Open(); !opened.ok()) return opened;
  return reader;
}

}  // namespace heaptape
