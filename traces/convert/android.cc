// Android's memory_replay: one line of text for each call.
//
//   TID: malloc ADDRESS SIZE [START_NS END_NS]
//   TID: calloc ADDRESS COUNT SIZE [START_NS END_NS]
//   TID: memalign ADDRESS ALIGNMENT SIZE [START_NS END_NS]
//   TID: realloc ADDRESS OLD_ADDRESS SIZE [START_NS END_NS]
//   TID: free ADDRESS [START_NS END_NS]
//   TID: thread_done 0x0 [END_NS]
//
// Addresses are hexadecimal, the rest decimal. Source: system/extras/memory_replay of the Android Open Source
// Project (MemoryTrace.cpp and its tests). No Android device was at hand: the sample is written from these,
// not by the recorder of bionic.
//
// A trace made from it has the seven calls above and no more; times begin with the first stamp. The other way,
// posix_memalign, aligned_alloc, valloc and pvalloc become memalign, reallocarray realloc.

#include <algorithm>
#include <charconv>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "traces/convert/formats.h"

namespace heaptape {
namespace {

std::string_view NextWord(std::string_view& line) {
  const std::size_t start = line.find_first_not_of(" \t\r");
  if (start == std::string_view::npos) return line = {};
  line.remove_prefix(start);
  const std::string_view word = line.substr(0, line.find_first_of(" \t\r"));
  line.remove_prefix(word.size());
  return word;
}

bool Number(std::string_view word, std::uint64_t& value) {
  const bool hex = word.size() > 2 && word[0] == '0' && (word[1] == 'x' || word[1] == 'X');
  if (hex) word.remove_prefix(2);
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value, hex ? 16 : 10);
  return error == std::errc() && end == word.data() + word.size() && !word.empty();
}

bool Address(std::string_view word, std::uint64_t& value) {
  if (word.substr(0, 2) == "0x" || word.substr(0, 2) == "0X") word.remove_prefix(2);
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value, 16);
  return error == std::errc() && end == word.data() + word.size() && !word.empty();
}

struct Line {
  std::int64_t thread = 0;
  std::string_view call;
  std::uint64_t address = 0, argument = 0, size = 0, start_ns = 0;
};

bool Parse(std::string_view text, Line& line) {
  const std::string_view thread = NextWord(text);
  if (thread.size() < 2 || thread.back() != ':') return false;
  const auto [end, error] = std::from_chars(thread.data(), thread.data() + thread.size() - 1, line.thread);
  if (error != std::errc() || end != thread.data() + thread.size() - 1) return false;
  line.call = NextWord(text);
  if (!Address(NextWord(text), line.address)) return false;
  if (line.call == "thread_done") {
    const std::string_view at = NextWord(text);
    return at.empty() || (Number(at, line.start_ns) && NextWord(text).empty());
  }
  if (line.call == "realloc") {
    if (!Address(NextWord(text), line.argument) || !Number(NextWord(text), line.size)) return false;
  } else if (line.call == "calloc" || line.call == "memalign") {
    if (!Number(NextWord(text), line.argument) || !Number(NextWord(text), line.size)) return false;
  } else if (line.call == "malloc") {
    if (!Number(NextWord(text), line.size)) return false;
  } else if (line.call != "free") {
    return false;
  }
  const std::string_view start = NextWord(text);
  if (start.empty()) return true;
  std::uint64_t end_ns = 0;
  if (!Number(start, line.start_ns) || !Number(NextWord(text), end_ns)) return false;
  // A later version may add fields: Android's own reader ignores them.
  return true;
}

bool Recognise(std::span<const std::uint8_t> head) {
  std::string_view text(reinterpret_cast<const char*>(head.data()), head.size());
  const std::string_view thread = NextWord(text);
  if (thread.size() < 2 || thread.back() != ':') return false;
  const std::string_view call = NextWord(text);
  for (const char* name : {"malloc", "calloc", "memalign", "realloc", "free", "thread_done"})
    if (call == name) return true;
  return false;
}

absl::Status Import(ByteReader& in, ImportedProgram& program) {
  std::string text;
  std::uint64_t first_ns = 0;
  while (program.status().ok() && in.Line(text)) {
    Line line;
    std::string_view rest = text;
    if (NextWord(rest).empty()) continue;
    if (!Parse(text, line))
      return absl::DataLossError(absl::StrCat("line ", in.position(), ": expected \"TID: CALL ADDRESS ...\", found \"",
                                              text.substr(0, 60), "\""));
    if (line.start_ns != 0) {
      if (first_ns == 0) first_ns = line.start_ns;
      if (line.start_ns > first_ns) program.Time(line.start_ns - first_ns);
    }
    if (line.call == "malloc") {
      program.Allocate(Op::kMalloc, line.address, line.size, 0, line.thread);
    } else if (line.call == "calloc") {
      std::uint64_t size;
      // The address of a call that cannot have succeeded is not believed.
      if (__builtin_mul_overflow(line.argument, line.size, &size)) program.Allocate(Op::kCalloc, 0, ~std::uint64_t{0}, 0, line.thread);
      else program.Allocate(Op::kCalloc, line.address, size, 0, line.thread);
    } else if (line.call == "memalign") {
      program.Allocate(Op::kMemalign, line.address, line.size, line.argument, line.thread);
    } else if (line.call == "realloc") {
      program.Reallocate(line.argument, line.address, line.size, line.thread);
    } else if (line.call == "free") {
      program.Free(line.address, line.thread);
    } else {
      program.EndThread(line.thread);
    }
  }
  return in.status().ok() ? program.status() : in.status();
}

absl::Status Write(TraceReader& reader, const ByteSink& sink, std::vector<std::string>& losses) {
  Output out(sink);
  std::uint64_t time_ns = 0;
  std::uint64_t other_calls = 0;
  const std::uint64_t page = std::max<std::uint64_t>(reader.info().page_bytes, 1);
  const absl::Status status = ForEachEvent(
      reader,
      [&](const Event& event) {
        // 0 stands for no stamp.
        const auto stamp = [&](std::string& text) { absl::StrAppendFormat(&text, " %u %u\n", time_ns + 1, time_ns + 1); };
        const std::uint64_t address = event.failed() ? 0 : AddressOfSlot(event.slot);
        std::string& text = out.text();
        const unsigned thread = event.thread + 1u;
        switch (event.op) {
          case Op::kMalloc:
            absl::StrAppendFormat(&text, "%u: malloc 0x%x %u", thread, address, event.size);
            break;
          case Op::kCalloc:
            absl::StrAppendFormat(&text, "%u: calloc 0x%x 1 %u", thread, address, event.size);
            break;
          case Op::kPosixMemalign:
          case Op::kAlignedAlloc:
          case Op::kValloc:
          case Op::kPvalloc:
            ++other_calls;
            [[fallthrough]];
          case Op::kMemalign: {
            const bool pages = event.op == Op::kValloc || event.op == Op::kPvalloc;
            absl::StrAppendFormat(&text, "%u: memalign 0x%x %u %u", thread, address,
                                  pages ? page : std::max<std::uint64_t>(event.alignment(), 1), event.size);
            break;
          }
          case Op::kReallocArray:
            ++other_calls;
            [[fallthrough]];
          case Op::kRealloc:
            absl::StrAppendFormat(&text, "%u: realloc 0x%x 0x%x %u", thread, address,
                                  event.fresh() || event.slot == ~0u ? 0 : AddressOfSlot(event.slot), event.size);
            break;
          case Op::kFree:
            absl::StrAppendFormat(&text, "%u: free 0x%x", thread, address);
            break;
          case Op::kThreadEnd:
            absl::StrAppendFormat(&text, "%u: thread_done 0x0 %u\n", thread, time_ns + 1);
            return true;
          case Op::kThreadStart:
            return true;  // told by its first call
          case Op::kTime:
            time_ns = event.size;
            return true;
          default:
            return false;
        }
        stamp(text);
        return true;
      },
      losses);
  if (other_calls != 0)
    losses.push_back(absl::StrCat("the kind of ", other_calls, " calls: memalign or realloc stands for posix_memalign, "
                                  "aligned_alloc, valloc, pvalloc and reallocarray"));
  return status;
}

}  // namespace

const ForeignFormat kAndroidFormat = {
    "android", "Android's memory_replay, text", "posix_memalign, aligned_alloc, valloc and pvalloc stand there as memalign",
    Recognise, Import, Write};

}  // namespace heaptape
