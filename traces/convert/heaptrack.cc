// heaptrack's data, raw or interpreted: lines of a letter and hexadecimal numbers.
//
//   v VERSION FORMAT             first; format 3 is the one of heaptrack 1.4 and 1.5
//   X COMMAND                    the recorded program
//   I PAGE_BYTES PAGES           of the machine
//   c MILLISECONDS               time, from then on
//   R PAGES                      resident set of the program and heaptrack in it
//   + SIZE TRACE ADDRESS         raw: an allocation         - ADDRESS   and its free
//   a SIZE TRACE                 interpreted: what is allocated, numbered as it comes
//   + INFO                       interpreted: an allocation of it         - INFO   the free of one like it
//   x m t i s S A #              executable, modules, call stacks, strings, suppressions, attached: skipped
//
// Source: libheaptrack.cpp, heaptrack_interpret.cpp and accumulatedtracedata.cpp of KDE's heaptrack. The samples are made
// by heaptrack 1.4.0 of Debian 12, and what is exported is read back by its interpreter and printer in a test.
//
// A trace made from it has malloc, free and nothing else: heaptrack writes every allocating call alike, a realloc as a free
// and an allocation, no alignment, no thread and no failure. An interpreted file does not say which of several objects of
// one size and stack is freed: the youngest is taken. Resident sets are left out, for heaptrack's own memory is in them.

#include <algorithm>
#include <charconv>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "traces/convert/formats.h"

namespace heaptape {
namespace {

constexpr std::uint64_t kFileFormat = 3;
constexpr std::uint64_t kNsPerMs = 1'000'000;

bool NextNumber(std::string_view& line, std::uint64_t& value) {
  while (!line.empty() && line.front() == ' ') line.remove_prefix(1);
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), value, 16);
  if (error != std::errc()) return false;
  line.remove_prefix(static_cast<std::size_t>(end - line.data()));
  return line.empty() || line.front() == ' ';
}

bool Recognise(std::span<const std::uint8_t> head) {
  std::string_view text(reinterpret_cast<const char*>(head.data()), head.size());
  if (text.substr(0, 2) != "v ") return false;
  text = text.substr(2, text.find('\n') - 2);
  std::uint64_t version = 0;
  return NextNumber(text, version) && version >= 0x10000;
}

// Objects of an interpreted file: each has a number of its own, kept by what it is an allocation of.
class Interpreted {
 public:
  static constexpr std::uint64_t kBytes = 64;  // of each kind of allocation, while the table of them grows
  bool empty() const { return infos_.empty(); }
  void Add(std::uint64_t size) { infos_.push_back({size, {}}); }
  bool Allocate(std::uint64_t info, ImportedProgram& program) {
    if (info >= infos_.size()) return false;
    infos_[info].live.push_back(next_);
    program.Allocate(Op::kMalloc, next_++, infos_[info].size, 0, 0);
    return true;
  }
  bool Free(std::uint64_t info, ImportedProgram& program) {
    if (info >= infos_.size() || infos_[info].live.empty()) return false;
    program.Free(infos_[info].live.back(), 0);
    infos_[info].live.pop_back();
    return true;
  }

 private:
  struct Info {
    std::uint64_t size;
    std::vector<std::uint64_t> live;
  };
  std::vector<Info> infos_;
  std::uint64_t next_ = 1;
};

absl::Status Import(ByteReader& in, ImportedProgram& program) {
  std::string text;
  std::uint64_t file_format = 0;
  Interpreted interpreted;
  const auto wrong = [&](const char* what) {
    return absl::DataLossError(absl::StrCat("line ", in.position(), ": ", what, ", found \"", text.substr(0, 60), "\""));
  };
  while (program.status().ok() && in.Line(text)) {
    if (text.size() < 2 || text[1] != ' ') continue;
    std::string_view line = std::string_view(text).substr(2);
    std::uint64_t first = 0, second = 0, third = 0;
    switch (text[0]) {
      case 'v':
        if (!NextNumber(line, first)) return wrong("expected heaptrack's version");
        if (!NextNumber(line, file_format)) file_format = 1;
        if (file_format == 0 || file_format > kFileFormat)
          return wrong("this version of heaptrack's data is not known");
        break;
      case 'X': {
        // The path of a program says more of its machine than its name.
        const std::string_view command = line.substr(0, line.find(' '));
        const std::size_t slash = command.rfind('/');
        program.info().program = std::string(command.substr(slash == std::string_view::npos ? 0 : slash + 1));
        break;
      }
      case 'I':
        if (!NextNumber(line, first) || !NextNumber(line, second)) return wrong("expected two numbers");
        if (first >= 512 && first <= (1u << 30)) program.info().page_bytes = static_cast<std::uint32_t>(first);
        program.info().memory_bytes = first * second;
        break;
      case 'c':
        if (!NextNumber(line, first) || first > ~std::uint64_t{0} / kNsPerMs) return wrong("expected a time");
        program.Time(first * kNsPerMs);
        break;
      case 'a':
        if (!NextNumber(line, first)) return wrong("expected a size");
        interpreted.Add(first);
        program.Takes(Interpreted::kBytes);
        break;
      case '+':
        if (file_format == 0) return wrong("expected heaptrack's version first");
        if (!NextNumber(line, first)) return wrong("expected numbers");
        if (interpreted.empty()) {
          if (!NextNumber(line, second) || !NextNumber(line, third) || third == 0) return wrong("expected an address");
          program.Allocate(Op::kMalloc, third, first, 0, 0);
        } else if (!interpreted.Allocate(first, program)) {
          return wrong("an allocation that was not described before");
        }
        break;
      case '-':
        if (!NextNumber(line, first)) return wrong("expected a number");
        if (interpreted.empty()) program.Free(first, 0);
        else if (!interpreted.Free(first, program)) return wrong("a free of what is not allocated");
        break;
      default:
        break;
    }
  }
  return in.status().ok() ? program.status() : in.status();
}

absl::Status Write(TraceReader& reader, const ByteSink& sink, std::vector<std::string>& losses) {
  const TraceInfo& info = reader.info();
  auto resident = reader.ReadResident();
  if (!resident.ok()) return resident.status();
  Output out(sink);
  const std::uint64_t page = std::max<std::uint64_t>(info.page_bytes, 1);
  // Names are counted and may be any text of one line. What could be more than text to a terminal is escaped, as in a dump.
  std::string program = info.program.empty() ? "unknown" : info.program;
  if (!std::all_of(program.begin(), program.end(), [](char c) { return absl::ascii_isprint(static_cast<unsigned char>(c)); })) {
    program = absl::CEscape(program);
  }
  absl::StrAppendFormat(&out.text(), "v 10400 %x\nx %x %s\nX %s\nI %x %x\nm 1 -\n", kFileFormat, program.size(), program,
                        program, page, info.memory_bytes / page);
  std::uint64_t other_calls = 0, reallocs = 0, written_ms = 0;
  std::size_t next_resident = 0;
  bool threads = false;
  const auto allocate = [&](const Event& event) {
    // One root for all: where a call came from is known of samples only.
    absl::StrAppendFormat(&out.text(), "+ %x 0 %x\n", event.size, AddressOfSlot(event.slot));
    return true;
  };
  const absl::Status status = ForEachEvent(
      reader,
      [&](const Event& event) {
        if (event.failed() || event.op == Op::kTrim || event.op == Op::kMallopt || event.op > Op::kTime) return false;
        threads |= IsCall(event.op) && event.thread != 0;
        switch (event.op) {
          case Op::kFree:
            absl::StrAppendFormat(&out.text(), "- %x\n", AddressOfSlot(event.slot));
            return true;
          case Op::kThreadStart:
          case Op::kThreadEnd:
            threads = true;
            return true;
          case Op::kTime:
            if (event.size / kNsPerMs > written_ms) absl::StrAppendFormat(&out.text(), "c %x\n", written_ms = event.size / kNsPerMs);
            for (; next_resident < resident->size() && (*resident)[next_resident].time_ns <= event.size; ++next_resident)
              absl::StrAppendFormat(&out.text(), "R %x\n", (*resident)[next_resident].rss_bytes / page);
            return true;
          case Op::kMalloc:
            return allocate(event);
          case Op::kRealloc:
          case Op::kReallocArray:
            if (!event.fresh()) {
              ++reallocs;
              absl::StrAppendFormat(&out.text(), "- %x\n", AddressOfSlot(event.slot));
              return allocate(event);
            }
            [[fallthrough]];
          default:
            ++other_calls;
            return allocate(event);
        }
      },
      losses);
  if (other_calls != 0) losses.push_back(absl::StrCat("the kind and alignment of ", other_calls, " calls that are not malloc"));
  if (reallocs != 0) losses.push_back(absl::StrCat(reallocs, " reallocs, which became a free and an allocation"));
  if (threads) losses.push_back("threads");
  if (info.time_resolution_ns % kNsPerMs != 0) losses.push_back("times below a millisecond");
  return status;
}

}  // namespace

const ForeignFormat kHeaptrackFormat = {
    "heaptrack", "heaptrack's data, raw or interpreted",
    "threads, reallocs, the kind of call, alignment, failures, and of interpreted data which of several like objects was freed",
    Recognise, Import, Write};

}  // namespace heaptape
