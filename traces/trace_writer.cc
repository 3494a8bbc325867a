#include "traces/trace_writer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "traces/checkpoint.h"
#include "traces/codec.h"
#include "traces/digest.h"
#include "traces/format.h"
#include "traces/index.h"
#include "traces/output_file.h"
#include "traces/parity.h"
#include "traces/side_records.h"

namespace heaptape {
namespace {

using format::BlockFields;
using format::BlockKind;
using Bytes = std::vector<std::uint8_t>;

unsigned Log2Alignment(std::uint64_t alignment) {
  return alignment <= 1 ? 0 : std::min<unsigned>(std::bit_width(alignment - 1), 63);
}

class Writer final : public TraceWriter {
 public:
  // `path` is empty where nothing is to be renamed.
  Writer(int descriptor, std::string path, std::string name, const TraceInfo& info, const TraceWriterOptions& options)
      : descriptor_(descriptor), path_(std::move(path)), name_(std::move(name)), info_(info), options_(options), zstd_(ZSTD_createCCtx()) {
    options_.block_events = std::clamp<std::uint32_t>(options_.block_events, 1, format::kMaxBlockEvents);
    resolution_ns_ = std::max<std::uint64_t>(info.time_resolution_ns, 1);
    threads_.assign(1, true);
    RestartStream();
    WriteHead();
  }

  ~Writer() override {
    ZSTD_freeCCtx(zstd_);
    if (descriptor_ >= 0) close(descriptor_);
  }

  std::uint32_t Allocate(Op op, std::uint64_t size_bytes, std::uint64_t alignment, std::uint16_t thread) override {
    if (!Ready()) return ~0u;
    const unsigned log2_alignment = Log2Alignment(alignment);
    const std::uint32_t slot = encoder_.Start(op, log2_alignment, size_bytes, thread);
    Event event{op, static_cast<std::uint8_t>(log2_alignment), thread, slot, size_bytes};
    if (op == Op::kRealloc || op == Op::kReallocArray) event.flags |= Event::kFresh;
    digest_.Add(event);
    live_bytes_ += size_bytes;
    peak_live_bytes_ = std::max(peak_live_bytes_, live_bytes_);
    peak_live_objects_ = std::max<std::uint64_t>(peak_live_objects_, encoder_.objects().size());
    return slot;
  }

  void PrefetchFree(std::uint32_t slot) const override {
    if (slot < encoder_.objects().slot_count()) encoder_.Prefetch(slot);
  }
  void PrefetchFreeNeighbours(std::uint32_t slot) const override {
    encoder_.PrefetchNeighbours(slot);
  }

  void Free(std::uint32_t slot, std::uint16_t thread) override {
    if (!Ready() || !CheckLive(slot)) return;
    encoder_.Free(slot, thread);
    digest_.Add(Event{Op::kFree, 0, thread, slot, 0});
    live_bytes_ -= encoder_.object(slot).size();
  }

  void Reallocate(Op op, std::uint32_t slot, std::uint64_t size_bytes, std::uint16_t thread) override {
    if (!Ready() || !CheckLive(slot)) return;
    live_bytes_ += size_bytes - encoder_.object(slot).size();
    peak_live_bytes_ = std::max(peak_live_bytes_, live_bytes_);
    encoder_.Reallocate(op, slot, size_bytes, thread);
    digest_.Add(Event{op, 0, thread, slot, size_bytes});
  }

  void Failure(Op op, std::uint32_t slot, std::uint64_t size_bytes, std::uint64_t alignment,
               std::uint16_t thread) override {
    if (!Ready()) return;
    if (slot != ~0u && !CheckLive(slot)) return;
    PutRare(Event{op, static_cast<std::uint8_t>(Event::kFailed | Log2Alignment(alignment)), thread, slot, size_bytes});
  }

  void Append(const Event& event) override {
    if (event.op == Op::kTime) return Time(event.size);
    if (!Ready()) return;
    if (event.op < Op::kTrim || event.op > Op::kLost) {
      Fail(absl::InternalError(absl::StrCat(Name(), ": ", OpName(event.op), " is no event to append")));
      return;
    }
    if (event.op == Op::kThreadStart || event.op == Op::kThreadEnd) {
      if (threads_.size() <= event.thread) threads_.resize(std::size_t{event.thread} + 1);
      const bool starts = event.op == Op::kThreadStart;
      if (starts != threads_[event.thread]) live_threads_ += starts ? 1 : -1;
      threads_[event.thread] = starts;
      peak_threads_ = std::max<std::uint64_t>(peak_threads_, live_threads_);
    } else if (event.op == Op::kLost) {
      lost_events_ += event.size;
    }
    PutRare(event);
  }

  void Time(std::uint64_t time_ns) override {
    const std::uint64_t step = time_ns / resolution_ns_;
    if (step <= step_ || !Ready()) return;
    encoder_.Mark(step - step_);
    step_ = step;
    marked_events_ = event_count();
    digest_.Add(Event{Op::kTime, 0, 0, 0, step * resolution_ns_});
  }

  void AddUnmatchedFrees(const UnmatchedFrees& frees) override {
    if (!status_.ok() || finished_) return;
    if (!unmatched_frees_) unmatched_frees_.emplace();
    unmatched_frees_->unknown += frees.unknown;
    unmatched_frees_->missed += frees.missed;
  }

  void Resident(const ResidentSample& sample) override {
    if (!Ready()) return;
    const std::uint64_t step = sample.time_ns / resolution_ns_;
    if (resident_step_ && step <= *resident_step_) return;
    resident_step_ = step;
    ResidentSample coarse = sample;
    coarse.time_ns = step * resolution_ns_;
    coarse.event_number = marked_events_;
    side_.Add(coarse);
  }
  void Touched(const TouchRecord& record) override {
    if (!Ready()) return;
    side_.Add(record);
    touch_digest_.Add(record);
  }
  std::uint32_t AddModule(const Module& module) override {
    if (Ready()) side_.Add(module_count_, module);
    return module_count_++;
  }
  void Stack(const StackSample& sample) override {
    if (Ready()) side_.Add(sample);
  }

  const LiveObject* Object(std::uint32_t slot) const override {
    return encoder_.IsLive(slot) ? &encoder_.object(slot) : nullptr;
  }
  std::uint32_t slot_count() const override { return encoder_.objects().slot_count(); }
  std::uint64_t event_count() const override { return status_.ok() ? first_event_ + encoder_.event_count() : first_event_; }
  std::uint64_t object_count() const override { return encoder_.object_count(); }
  std::uint64_t live_objects() const override { return encoder_.objects().size(); }
  std::uint64_t live_bytes() const override { return live_bytes_; }
  std::uint64_t bytes_written() const override { return bytes_written_; }

  absl::Status Flush() override {
    if (status_.ok() && !finished_) WriteEvents();
    return status_;
  }

  absl::Status Finish() override {
    if (finished_) return status_;
    if (status_.ok()) WriteEvents();
    if (status_.ok()) written_.unmatched_frees = unmatched_frees_;
    if (status_.ok() && parity_.IsWorthItAtTheEnd()) WriteParity();
    // A trace that ended at its limit or on a full disk is finished as far as it goes.
    if (status_.ok() || absl::IsResourceExhausted(status_)) {
      WriteIndex();
      Rename();
    }
    finished_ = true;
    return status_;
  }

  absl::Status status() const override { return status_; }

 private:
  // False where nothing more is written; ends a full block first.
  bool Ready() {
    if (!status_.ok() || finished_) return false;
    if (encoder_.event_count() >= options_.block_events) WriteEvents();
    return status_.ok();
  }

  bool CheckLive(std::uint32_t slot) {
    if (encoder_.IsLive(slot)) return true;
    Fail(absl::InternalError(absl::StrCat(Name(), ": slot ", slot, " holds no live object")));
    return false;
  }

  void PutRare(const Event& event) {
    encoder_.Rare(event);
    digest_.Add(event);
  }

  void Fail(absl::Status status) {
    if (status_.ok()) status_ = std::move(status);
  }

  const std::string& Name() const { return name_; }

  // Writes all or, where that fails, cuts the file back to where it was.
  bool Write(const Bytes& first, const Bytes& second) {
    const std::uint64_t end = bytes_written_ + first.size() + second.size();
    if (options_.file_size_limit_bytes != 0 && !closing_ && end + IndexBytes() > options_.file_size_limit_bytes) {
      ended_at_limit_ = true;
      Fail(absl::ResourceExhaustedError(absl::StrCat(Name(), ": the size limit of ", options_.file_size_limit_bytes,
                                                     " bytes is reached; the trace ends here")));
      return false;
    }
    for (const Bytes* part : {&first, &second}) {
      std::size_t done = 0;
      while (done < part->size()) {
        const ssize_t written = write(descriptor_, part->data() + done, part->size() - done);
        if (written > 0) {
          done += static_cast<std::size_t>(written);
          continue;
        }
        if (written < 0 && errno == EINTR) continue;
        const int error = written < 0 ? errno : ENOSPC;
        if (ftruncate(descriptor_, static_cast<off_t>(bytes_written_)) == 0)
          lseek(descriptor_, static_cast<off_t>(bytes_written_), SEEK_SET);
        const std::string text = absl::StrCat(Name(), ": cannot write at byte ", bytes_written_, ": ",
                                              std::strerror(error), "; what was written before is valid");
        Fail(error == ENOSPC || error == EDQUOT || error == EFBIG ? absl::ResourceExhaustedError(text)
                                                                  : absl::UnavailableError(text));
        return false;
      }
    }
    bytes_written_ = end;
    return true;
  }

  // An upper bound for the index as it would be now.
  std::uint64_t IndexBytes() const { return info_bytes_.size() + 512 + 20 * restarts_.size(); }

  void WriteHead() {
    Bytes head(format::kFileMagic, format::kFileMagic + 8);
    format::PutU32(head, format::kVersionMajor | std::uint32_t{format::kVersionMinor} << 16);
    format::PutU32(head, 0);
    EncodeInfo(info_, info_bytes_);
    const Bytes header = format::EncodeHeader(BlockKind::kInfo, 0, {}, info_bytes_);
    head.insert(head.end(), header.begin(), header.end());
    Write(head, info_bytes_);
  }

  void RestartStream() {
    ZSTD_CCtx_reset(zstd_, ZSTD_reset_session_and_parameters);
    ZSTD_CCtx_setParameter(zstd_, ZSTD_c_compressionLevel, options_.compression_level);
    ZSTD_CCtx_setParameter(zstd_, ZSTD_c_windowLog, options_.window_log);
    ZSTD_CCtx_setParameter(zstd_, ZSTD_c_contentSizeFlag, 0);
  }

  // Adds `bytes` to the stream and ends a zstd block after it, so that each column has its own statistics.
  void Compress(std::span<const std::uint8_t> bytes, Bytes& out) {
    ZSTD_inBuffer in{bytes.data(), bytes.size(), 0};
    std::size_t left;
    do {
      const std::size_t at = out.size();
      out.resize(at + ZSTD_compressBound(bytes.size()) + 64);
      ZSTD_outBuffer buffer{out.data() + at, out.size() - at, 0};
      left = ZSTD_compressStream2(zstd_, &buffer, &in, ZSTD_e_flush);
      out.resize(at + buffer.pos);
    } while (!ZSTD_isError(left) && left != 0);
    if (ZSTD_isError(left)) Fail(absl::InternalError(absl::StrCat(Name(), ": zstd: ", ZSTD_getErrorName(left))));
  }

  BlockFields Fields() const {
    BlockFields fields;
    fields.first_event = first_event_;
    fields.first_object = first_object_;
    fields.start_step = first_step_;
    fields.peak_live_objects = peak_live_objects_;
    fields.peak_live_bytes = peak_live_bytes_;
    fields.peak_threads = peak_threads_;
    fields.lost_events = lost_events_;
    fields.event_digest = digest_.state();
    fields.touch_digest = touch_digest_.state();
    fields.unmatched_frees = unmatched_frees_;
    return fields;
  }

  void WriteEvents() {
    Bytes& side = side_.bytes();
    if (encoder_.event_count() == 0 && side.empty()) return;
    std::uint8_t flags = 0;
    BlockFields fields = Fields();
    fields.event_count = encoder_.event_count();
    fields.object_count = encoder_.object_count() - first_object_;
    fields.step_count = step_ - first_step_;
    payload_.clear();
    if (side.size() >= 200) {
      const std::size_t bound = ZSTD_compressBound(side.size());
      payload_.resize(bound);
      const std::size_t size = ZSTD_compress(payload_.data(), bound, side.data(), side.size(), options_.compression_level);
      payload_.resize(ZSTD_isError(size) ? 0 : size);
      if (!payload_.empty()) flags |= format::kFlagSideCompressed;
    }
    if (!(flags & format::kFlagSideCompressed)) payload_ = side;
    fields.side_bytes = payload_.size();
    side.clear();
    if (fields.event_count > 0) {
      const Bytes& lengths = encoder_.FinishLengths();
      fields.raw_bytes = lengths.size();
      Compress(lengths, payload_);
      for (unsigned i = 0; i < kColumnCount; ++i) {
        const auto column = encoder_.column(i);
        if (column.empty()) continue;
        fields.raw_bytes += column.size();
        Compress(column, payload_);
      }
      if (restart_) flags |= format::kFlagRestart;
    }
    if (!status_.ok()) return;
    const Bytes header = format::EncodeHeader(BlockKind::kEvents, flags, fields, payload_);
    const std::uint64_t offset = bytes_written_;
    if (!Write(header, payload_)) return;
    if (options_.parity) parity_.Add(offset, header, payload_);
    first_event_ += fields.event_count;
    first_object_ = encoder_.object_count();
    first_step_ = step_;
    // What the index repeats: the figures up to here, not those of events that were never written.
    written_ = Fields();
    if (parity_.IsDue()) WriteParity();
    if (fields.event_count == 0 || !status_.ok()) return;
    restart_ = false;
    const bool checkpoint = CheckpointMayBeDue() && WriteCheckpoint();
    encoder_.NextBlock(checkpoint);
    if (checkpoint) {
      restart_ = true;
      RestartStream();
    }
  }

  // By what the last one took for each slot. The first one is tried.
  bool CheckpointMayBeDue() const {
    return options_.checkpoint_interval_events != 0 &&
           first_event_ - checkpoint_event_ >= options_.checkpoint_interval_events &&
           (options_.expected_events == 0 || first_event_ + options_.checkpoint_interval_events <= options_.expected_events) &&
           encoder_.objects().slot_count() <= format::kMaxCheckpointSlots &&
           CheckpointIsWorth(checkpoint_slot_bytes_ * static_cast<double>(encoder_.objects().slot_count()));
  }
  bool CheckpointIsWorth(double bytes) const {
    const std::uint64_t events = first_event_ - checkpoint_event_;
    return static_cast<double>(bytes_written_ - checkpoint_offset_) * options_.checkpoint_share >= bytes ||
           static_cast<double>(events) * options_.checkpoint_bytes_per_event >= bytes ||
           events >= options_.checkpoint_limit_events;
  }

  // False where it was not written.
  bool WriteCheckpoint() {
    Checkpoint checkpoint;
    const LiveList& list = encoder_.objects();
    checkpoint.slot_count = list.slot_count();
    checkpoint.objects.reserve(list.size());
    for (LiveList::Node node = list.oldest(); node != LiveList::kEnd; node = list.next(node)) {
      const LiveObject& object = encoder_.object(node - 1);
      checkpoint.objects.push_back({node - 1, object.op(), object.log2_alignment(), object.size(), object.number()});
    }
    for (LiveList::Node node = list.free_head(); node != LiveList::kEnd; node = list.next(node))
      checkpoint.free_slots.push_back(node - 1);
    std::reverse(checkpoint.free_slots.begin(), checkpoint.free_slots.end());
    for (std::size_t i = 0; i < threads_.size(); ++i)
      if (threads_[i]) checkpoint.threads.push_back(static_cast<std::uint16_t>(i));
    Bytes raw;
    EncodeCheckpoint(checkpoint, raw);
    Bytes packed(ZSTD_compressBound(raw.size()));
    const std::size_t size =
        ZSTD_compress(packed.data(), packed.size(), raw.data(), raw.size(), options_.compression_level);
    if (ZSTD_isError(size) || size > format::kMaxPayloadBytes || raw.size() > format::kMaxPayloadBytes) return false;
    packed.resize(size);
    checkpoint_slot_bytes_ = static_cast<double>(size) / std::max<double>(1, checkpoint.slot_count);
    if (!CheckpointIsWorth(static_cast<double>(size))) return false;
    BlockFields fields = Fields();
    fields.raw_bytes = raw.size();
    const std::uint64_t offset = bytes_written_;
    if (!Write(format::EncodeHeader(BlockKind::kCheckpoint, 0, fields, packed), packed)) return false;
    restarts_.push_back({offset, first_event_});
    checkpoint_event_ = first_event_;
    checkpoint_offset_ = bytes_written_;
    return true;
  }

  // The repair of what is written already must not be what ends a trace.
  void WriteParity() {
    Bytes payload;
    parity_.Finish(bytes_written_, payload);
    const Bytes header = format::EncodeHeader(BlockKind::kParity, 0, {}, payload);
    const std::uint64_t end = bytes_written_ + header.size() + payload.size() + IndexBytes();
    if (payload.size() > format::kMaxPayloadBytes || (options_.file_size_limit_bytes != 0 && end > options_.file_size_limit_bytes))
      return;
    Write(header, payload);
  }

  void WriteIndex() {
    closing_ = true;
    Bytes payload;
    EncodeIndex({ended_at_limit_ ? TraceEnd::kSizeLimit : status_.ok() ? TraceEnd::kFinished : TraceEnd::kDiskFull,
                 restarts_, info_},
                payload);
    Bytes trailer(format::kTrailerMagic, format::kTrailerMagic + 8);
    format::PutU64(trailer, bytes_written_);
    Bytes block = format::EncodeHeader(BlockKind::kIndex, 0, written_, payload);
    block.insert(block.end(), payload.begin(), payload.end());
    Write(block, trailer);
  }

  void Rename() {
    if (path_.empty() || part_path().empty()) return;
    // Content first, name after: a power cut must not leave the final name on an empty file.
    fdatasync(descriptor_);
    if (absl::Status placed = PutInPlace(part_path(), path_, options_.replace); !placed.ok()) Fail(std::move(placed));
  }
  std::string part_path() const { return path_ + ".part"; }

  int descriptor_;
  std::string path_;
  std::string name_;
  TraceInfo info_;
  TraceWriterOptions options_;
  ZSTD_CCtx* zstd_;
  absl::Status status_;
  bool finished_ = false;
  bool closing_ = false;
  bool ended_at_limit_ = false;

  EventEncoder encoder_;
  SideWriter side_;
  ParityWriter parity_;
  std::vector<bool> threads_;
  std::uint32_t module_count_ = 0;
  std::int64_t live_threads_ = 1;
  std::uint64_t peak_threads_ = 1;
  std::uint64_t resolution_ns_ = 1;
  std::uint64_t live_bytes_ = 0;
  std::uint64_t peak_live_bytes_ = 0;
  std::uint64_t peak_live_objects_ = 0;
  std::uint64_t lost_events_ = 0;
  std::optional<UnmatchedFrees> unmatched_frees_;
  std::uint64_t step_ = 0;
  std::uint64_t marked_events_ = 0;             // up to the last time mark, that one included
  std::optional<std::uint64_t> resident_step_;  // of the last resident sample
  EventDigest digest_, touch_digest_;

  // At the start of the block that is being filled.
  std::uint64_t first_event_ = 0;
  std::uint64_t first_object_ = 0;
  std::uint64_t first_step_ = 0;
  bool restart_ = true;
  BlockFields written_;

  Bytes payload_, info_bytes_;
  std::uint64_t bytes_written_ = 0;
  std::vector<TraceIndex::Restart> restarts_;
  std::uint64_t checkpoint_event_ = 0;
  std::uint64_t checkpoint_offset_ = 0;
  double checkpoint_slot_bytes_ = 0;  // as the last one came out
};

}  // namespace

std::uint16_t TraceWriter::BeginWithThreads(const std::vector<bool>& alive) {
  std::uint16_t first = 0;
  for (std::size_t thread = alive.size(); thread-- > 0;) {
    if (alive[thread]) first = static_cast<std::uint16_t>(thread);
  }
  for (std::size_t thread = 1; thread < alive.size(); ++thread) {
    if (alive[thread]) Append({.op = Op::kThreadStart, .flags = 0, .thread = static_cast<std::uint16_t>(thread), .slot = 0, .size = 0});
  }
  if (first != 0) Append({.op = Op::kThreadEnd, .flags = 0, .thread = 0, .slot = 0, .size = 0});
  return first;
}

absl::StatusOr<std::unique_ptr<TraceWriter>> TraceWriter::Create(const std::string& path, const TraceInfo& info,
                                                                 const TraceWriterOptions& options) {
  if (absl::Status free = CheckOutput(path, options.replace); !free.ok()) return free;
  const std::string part = path + ".part";
  const int descriptor = open(part.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
                              static_cast<mode_t>(options.file_mode));
  if (descriptor < 0) {
    const std::string text = absl::StrCat(part, ": cannot create: ", std::strerror(errno));
    if (errno == EEXIST) return absl::AlreadyExistsError(absl::StrCat(text, "; move it away or choose another name"));
    return absl::UnavailableError(text);
  }
  auto writer = std::make_unique<Writer>(descriptor, path, path, info, options);
  if (!writer->status().ok()) return writer->status();
  return writer;
}

absl::StatusOr<std::unique_ptr<TraceWriter>> TraceWriter::CreateOnDescriptor(int descriptor, const TraceInfo& info,
                                                                             const TraceWriterOptions& options,
                                                                             const std::string& name) {
  auto writer = std::make_unique<Writer>(descriptor, "", name, info, options);
  if (!writer->status().ok()) return writer->status();
  return writer;
}

}  // namespace heaptape
