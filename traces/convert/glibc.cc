// The records of glibc's malloc tracing (branch dj/malloc of glibc, and malloc-trace-utils): 64 bytes each.
//
//   0 int32 thread, 4 u8 type, 5 u8[3] path taken inside malloc, 8 u64 ptr1, 16 u64 ptr2, 24 u64 size,
//   32 u64 size2, 40 u64 size3, 48 u64[2] nothing
//
// Types: 0 unused, 1 malloc, 2 calloc, 3 free (ptr1), 4 realloc (of ptr1), 5 memalign (to size2), 6 valloc,
// 7 pvalloc, 8 posix_memalign (to size2; ptr1 is its error), 255 the first record (ptr1 0x1234, size 8).
// ptr2 is the new address. Source: malloc/mtrace.h and malloc/malloc.c of that branch. A glibc with it was not
// built here: the sample is written from these.
//
// A trace made from it has no time and no end of threads; calloc comes as the product, aligned_alloc as
// memalign. The other way, threads of one number are one thread, and the sizes inside malloc are 0.

#include <algorithm>
#include <array>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "traces/convert/formats.h"
#include "traces/format.h"

namespace heaptape {
namespace {

constexpr std::size_t kRecordBytes = 64;
constexpr std::uint64_t kMagicPointer = 0x1234;

enum Type : std::uint8_t {
  kUnused = 0, kMalloc, kCalloc, kFree, kRealloc, kMemalign, kValloc, kPvalloc, kPosixMemalign, kMagic = 255
};

using Record = std::array<std::uint8_t, kRecordBytes>;

bool Recognise(std::span<const std::uint8_t> head) {
  return head.size() >= 32 && head[4] == kMagic && format::GetU64(head.data() + 8) == kMagicPointer;
}

absl::Status Import(ByteReader& in, ImportedProgram& program) {
  Record record;
  while (program.status().ok() && in.Read(record)) {
    const auto thread = static_cast<std::int32_t>(format::GetU32(record.data()));
    const std::uint64_t old_address = format::GetU64(record.data() + 8), address = format::GetU64(record.data() + 16);
    const std::uint64_t size = format::GetU64(record.data() + 24), alignment = format::GetU64(record.data() + 32);
    switch (record[4]) {
      case kUnused:
      case kMagic:
        break;
      case kMalloc:
        program.Allocate(Op::kMalloc, address, size, 0, thread);
        break;
      case kCalloc:
        program.Allocate(Op::kCalloc, address, size, 0, thread);
        break;
      case kFree:
        program.Free(old_address, thread);
        break;
      case kRealloc:
        program.Reallocate(old_address, address, size, thread);
        break;
      case kMemalign:
        program.Allocate(Op::kMemalign, address, size, alignment, thread);
        break;
      case kValloc:
        program.Allocate(Op::kValloc, address, size, 0, thread);
        break;
      case kPvalloc:
        program.Allocate(Op::kPvalloc, address, size, 0, thread);
        break;
      case kPosixMemalign:
        program.Allocate(Op::kPosixMemalign, old_address == 0 ? address : 0, size, alignment, thread);
        break;
      default:
        return absl::DataLossError(absl::StrCat("record ", in.position(), ": unknown type ", unsigned{record[4]}));
    }
  }
  return in.status().ok() ? program.status() : in.status();
}

void Put(std::string& out, std::int32_t thread, Type type, std::uint64_t ptr1, std::uint64_t ptr2, std::uint64_t size,
         std::uint64_t size2) {
  Record record{};
  const std::uint64_t words[] = {static_cast<std::uint32_t>(thread) | std::uint64_t{type} << 32, ptr1, ptr2, size, size2};
  std::size_t at = 0;
  for (const std::uint64_t word : words)
    for (int i = 0; i < 8; ++i) record[at++] = static_cast<std::uint8_t>(word >> (8 * i));
  out.append(reinterpret_cast<const char*>(record.data()), record.size());
}

absl::Status Write(TraceReader& reader, const ByteSink& sink, std::vector<std::string>& losses) {
  constexpr std::uint64_t kNoMemory = 12;  // ENOMEM
  Output out(sink);
  std::uint64_t other_calls = 0;
  Put(out.text(), 1, kMagic, kMagicPointer, 0, 8, 0);
  const absl::Status status = ForEachEvent(
      reader,
      [&](const Event& event) {
        const std::uint64_t address = event.failed() ? 0 : AddressOfSlot(event.slot);
        const auto put = [&](Type type, std::uint64_t ptr1, std::uint64_t ptr2, std::uint64_t size2) {
          Put(out.text(), event.thread + 1, type, ptr1, ptr2, event.size, size2);
          return true;
        };
        const std::uint64_t alignment = std::max<std::uint64_t>(event.alignment(), 1);
        switch (event.op) {
          case Op::kMalloc:
            return put(kMalloc, 0, address, 0);
          case Op::kCalloc:
            return put(kCalloc, 0, address, 0);
          case Op::kReallocArray:
            ++other_calls;
            [[fallthrough]];
          case Op::kRealloc:
            return put(kRealloc, event.fresh() || event.slot == ~0u ? 0 : AddressOfSlot(event.slot), address, 0);
          case Op::kFree:
            return put(kFree, address, 0, 0);
          case Op::kPosixMemalign:
            return put(kPosixMemalign, event.failed() ? kNoMemory : 0, address, alignment);
          case Op::kAlignedAlloc:
            ++other_calls;
            [[fallthrough]];
          case Op::kMemalign:
            return put(kMemalign, 0, address, alignment);
          case Op::kValloc:
            return put(kValloc, 0, address, 0);
          case Op::kPvalloc:
            return put(kPvalloc, 0, address, 0);
          case Op::kThreadStart:
            return true;  // told by its first call
          default:
            return false;
        }
      },
      losses);
  if (other_calls != 0)
    losses.push_back(absl::StrCat("the kind of ", other_calls, " calls: memalign stands for aligned_alloc, realloc for reallocarray"));
  return status;
}

}  // namespace

const ForeignFormat kGlibcFormat = {
    "glibc", "glibc's malloc tracing (malloc-trace-utils), records of 64 bytes", "times, and where threads end",
    Recognise, Import, Write};

}  // namespace heaptape
