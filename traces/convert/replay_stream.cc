// The stream that malloc-trace-replay's `postprocess` makes of a gperftools wip-malloc-tracing recording, and
// that its `replay` reads: 24 bytes an instruction.
//
//   0 u8 type, 1 u56 register, 8 u64 first, 16 u64 second
//
// Types: 0 malloc (first: size), 1 free, 2 sized free, 3 memalign (size, alignment), 4 realloc (of the register;
// first: new register, second: size), 5 switch to thread `first`, 6 the current thread ends, 7 time `first` in ns on
// CPU `second`. Source: instruction.h, postprocess.cc and replay.cc of github.com/alk/malloc-trace-replay, from
// which the sample is written; neither side was tried with these programs.
//
// A trace made from it has malloc for calloc and for realloc of NULL, sizes as the recorder kept them (rounded up to
// 8), memalign for the other aligned calls, no failures; what the program never freed is freed at the end, for
// postprocess does so. The other way the sizes are exact.

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "traces/convert/formats.h"
#include "traces/format.h"

namespace heaptape {
namespace {

constexpr std::size_t kRecordBytes = 24;

enum Type : std::uint8_t { kMalloc, kFree, kFreeSized, kMemalign, kRealloc, kSwitchThread, kKillThread, kSetTime };

using Record = std::array<std::uint8_t, kRecordBytes>;

// There is no magic: a stream begins with the switch to its first thread, or with a time.
bool Recognise(std::span<const std::uint8_t> head) {
  if (head.size() < kRecordBytes || (head[0] != kSwitchThread && head[0] != kSetTime)) return false;
  if (std::any_of(head.begin() + 1, head.begin() + 8, [](std::uint8_t byte) { return byte != 0; })) return false;
  return head.size() < 2 * kRecordBytes || head[kRecordBytes] <= kSetTime;
}

absl::Status Import(ByteReader& in, ImportedProgram& program) {
  Record record;
  std::int64_t thread = -1;
  std::uint64_t first_ns = 0;
  while (program.status().ok() && in.Read(record)) {
    // Addresses are registers, and 0 is one of them.
    const std::uint64_t address = (format::GetU64(record.data()) >> 8) + 1;
    const std::uint64_t first = format::GetU64(record.data() + 8), second = format::GetU64(record.data() + 16);
    switch (record[0]) {
      case kMalloc:
        program.Allocate(Op::kMalloc, address, first, 0, thread);
        break;
      case kFree:
      case kFreeSized:
        program.Free(address, thread);
        break;
      case kMemalign:
        program.Allocate(Op::kMemalign, address, first, second, thread);
        break;
      case kRealloc:
        if (first == ~std::uint64_t{0})
          return absl::DataLossError(absl::StrCat("record ", in.position(), ": a register out of range"));
        program.Reallocate(address, first + 1, second, thread);
        break;
      case kSwitchThread:
        thread = static_cast<std::int64_t>(first);
        break;
      case kKillThread:
        program.EndThread(thread);
        break;
      case kSetTime:
        if (first_ns == 0) first_ns = first;
        if (first > first_ns) program.Time(first - first_ns);
        break;
      default:
        return absl::DataLossError(absl::StrCat("record ", in.position(), ": unknown type ", unsigned{record[0]}));
    }
  }
  return in.status().ok() ? program.status() : in.status();
}

void Put(std::string& out, Type type, std::uint64_t slot, std::uint64_t first, std::uint64_t second) {
  for (const std::uint64_t word : {type | slot << 8, first, second})
    for (int i = 0; i < 8; ++i) out.push_back(static_cast<char>(word >> (8 * i)));
}

absl::Status Write(TraceReader& reader, const ByteSink& sink, std::vector<std::string>& losses) {
  Output out(sink);
  std::uint64_t other_calls = 0;
  std::int64_t thread = -1;
  const auto put = [&](Type type, std::uint64_t slot, std::uint64_t first, std::uint64_t second) {
    Put(out.text(), type, slot, first, second);
    return true;
  };
  const std::uint64_t page = std::max<std::uint64_t>(reader.info().page_bytes, 1);
  std::vector<bool> seen;  // threads that have called
  put(kSetTime, 0, 1, 0);
  const absl::Status status = ForEachEvent(
      reader,
      [&](const Event& event) {
        if (event.failed() || event.op == Op::kTrim || event.op == Op::kMallopt || event.op > Op::kTime) return false;
        if (event.op == Op::kTime) return put(kSetTime, 0, event.size + 1, 0);
        if (event.op == Op::kThreadStart) return true;  // told by its first call
        if (event.op == Op::kThreadEnd && (event.thread >= seen.size() || !seen[event.thread])) return true;
        if (event.thread != thread) put(kSwitchThread, 0, static_cast<std::uint64_t>(thread = event.thread), 0);
        if (event.thread >= seen.size()) seen.resize(std::size_t{event.thread} + 1);
        seen[event.thread] = event.op != Op::kThreadEnd;
        switch (event.op) {
          case Op::kFree:
            return put(kFree, event.slot, 0, 0);
          case Op::kThreadEnd:
            thread = -1;
            return put(kKillThread, 0, 0, 0);
          case Op::kReallocArray:
          case Op::kRealloc:
            if (!event.fresh()) {
              other_calls += event.op == Op::kReallocArray;
              return put(kRealloc, event.slot, event.slot, event.size);
            }
            [[fallthrough]];
          case Op::kCalloc:
            ++other_calls;
            [[fallthrough]];
          case Op::kMalloc:
            return put(kMalloc, event.slot, event.size, 0);
          case Op::kValloc:
          case Op::kPvalloc:
            ++other_calls;
            return put(kMemalign, event.slot, event.size, page);
          case Op::kPosixMemalign:
          case Op::kAlignedAlloc:
            ++other_calls;
            [[fallthrough]];
          default:
            return put(kMemalign, event.slot, event.size, std::max<std::uint64_t>(event.alignment(), 1));
        }
      },
      losses);
  if (other_calls != 0)
    losses.push_back(absl::StrCat("the kind of ", other_calls, " calls: only malloc, memalign, realloc and free are there"));
  return status;
}

}  // namespace

const ForeignFormat kReplayFormat = {
    "malloc-trace-replay", "the stream that malloc-trace-replay's postprocess makes and its replay reads",
    "failures, calloc and the kind of aligned calls; sizes come rounded up to 8",
    Recognise, Import, Write};

}  // namespace heaptape
