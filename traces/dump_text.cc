#include "traces/dump_text.h"

#include <array>
#include <charconv>
#include <limits>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "traces/memory_limit.h"

namespace heaptape {
namespace {

constexpr char kFirstLine[] = "#heaptape dump 1";

// The description's fields by name, for both ways.
struct TextField {
  const char* name;
  std::string TraceInfo::*member;
};
constexpr std::array<TextField, 8> kTextFields = {{{"program", &TraceInfo::program},
                                                   {"c_library", &TraceInfo::c_library},
                                                   {"allocator", &TraceInfo::allocator},
                                                   {"allocator_version", &TraceInfo::allocator_version},
                                                   {"allocator_path", &TraceInfo::allocator_path},
                                                   {"allocator_build_id", &TraceInfo::allocator_build_id},
                                                   {"kernel", &TraceInfo::kernel},
                                                   {"heaptape_version", &TraceInfo::heaptape_version}}};

using NumberFields = std::vector<std::pair<const char*, std::uint64_t>>;

NumberFields Numbers(const TraceInfo& info) {
  return {{"memory_bytes", info.memory_bytes},
          {"start_unix_seconds", info.start_unix_seconds},
          {"time_resolution_ns", info.time_resolution_ns},
          {"cpu_count", info.cpu_count},
          {"page_bytes", info.page_bytes},
          {"huge_pages", static_cast<std::uint64_t>(info.huge_pages)},
          {"privacy_level", info.privacy_level},
          {"stack_sample_bytes", info.stack_sample_bytes},
          {"segment_start_ns", info.segment_start_ns},
          {"segment_number", info.segment_number}};
}

bool SetNumber(const std::string& name, std::uint64_t value, TraceInfo& info) {
  if (name == "memory_bytes") info.memory_bytes = value;
  else if (name == "start_unix_seconds") info.start_unix_seconds = value;
  else if (name == "time_resolution_ns") info.time_resolution_ns = value;
  else if (name == "cpu_count") info.cpu_count = static_cast<std::uint32_t>(value);
  else if (name == "page_bytes") info.page_bytes = static_cast<std::uint32_t>(value);
  else if (name == "huge_pages" && value <= 3) info.huge_pages = static_cast<HugePages>(value);
  else if (name == "privacy_level") info.privacy_level = static_cast<std::uint8_t>(value);
  else if (name == "stack_sample_bytes") info.stack_sample_bytes = value;
  else if (name == "segment_start_ns") info.segment_start_ns = value;
  else if (name == "segment_number") info.segment_number = value;
  else return false;
  return true;
}

void AppendNumber(std::uint64_t value, std::string& out) {
  char digits[20];
  const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  out.append(digits, end);
}

// One word of a line; empty at its end.
std::string_view NextWord(std::string_view& line) {
  const std::size_t start = line.find_first_not_of(' ');
  if (start == std::string_view::npos) return line = {};
  line.remove_prefix(start);
  const std::string_view word = line.substr(0, line.find(' '));
  line.remove_prefix(word.size());
  return word;
}

bool ParseNumber(std::string_view word, std::uint64_t& value) {
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  return error == std::errc() && end == word.data() + word.size();
}
bool NextNumber(std::string_view& line, std::uint64_t& value) { return ParseNumber(NextWord(line), value); }

bool ParseOp(std::string_view word, Op& op) {
  for (unsigned i = 0; i < kOpCount; ++i) {
    op = static_cast<Op>(i);
    if (word == OpName(op)) return true;
  }
  return false;
}

// "-" stands for no slot: that of a failure, and of the events around the process.
bool HasSlot(const Event& event) {
  return event.op == Op::kMallopt || (event.slot != ~0u && (IsCall(event.op) || event.slot != 0));
}

struct SideLines {
  std::vector<ResidentSample> resident;
  std::vector<TouchRecord> touched;
  std::vector<StackSample> stacks;
  std::size_t next_resident = 0, next_touched = 0, next_stack = 0;

  bool Due(std::uint64_t events, std::uint64_t objects) const {
    return (next_resident < resident.size() && resident[next_resident].event_number <= events) ||
           (next_touched < touched.size() && touched[next_touched].object < objects) ||
           (next_stack < stacks.size() && stacks[next_stack].object < objects);
  }
  // Those of objects and events that have come by now.
  void Append(std::uint64_t events, std::uint64_t objects, std::string& out) {
    for (; next_resident < resident.size() && resident[next_resident].event_number <= events; ++next_resident) {
      const ResidentSample& s = resident[next_resident];
      absl::StrAppend(&out, "#resident ", s.time_ns, " ", s.event_number, " ", s.rss_bytes, " ", s.anonymous_bytes);
      absl::StrAppend(&out, " ", s.non_heap_bytes, " ", s.peak_rss_bytes, " ", s.lazy_free_bytes);
      absl::StrAppend(&out, " ", s.huge_page_bytes, "\n");
    }
    for (; next_touched < touched.size() && touched[next_touched].object < objects; ++next_touched) {
      const TouchRecord& record = touched[next_touched];
      absl::StrAppend(&out, "#touched ", record.object, record.when == TouchRecord::When::kFree ? " free" : " allocation");
      for (const PageRange& range : record.present) absl::StrAppend(&out, " ", range.first_page, "+", range.page_count);
      out += '\n';
    }
    for (; next_stack < stacks.size() && stacks[next_stack].object < objects; ++next_stack) {
      absl::StrAppend(&out, "#stack ", stacks[next_stack].object);
      for (const StackFrame& frame : stacks[next_stack].frames) absl::StrAppend(&out, " ", frame.module, "+", frame.offset);
      out += '\n';
    }
  }
};

}  // namespace

void AppendEventLine(const Event& event, DumpFormat format, std::string& out) {
  const bool has_thread = event.op != Op::kTime && event.op != Op::kLost;
  if (format == DumpFormat::kJsonLines) {
    out += "{\"event\":\"";
    out += OpName(event.op);
    out += '"';
    const auto field = [&out](const char* name, std::uint64_t value) {
      out += name;
      AppendNumber(value, out);
    };
    if (has_thread) field(",\"thread\":", event.thread);
    if (HasSlot(event)) field(",\"slot\":", event.slot);
    field(",\"size\":", event.size);
    if (event.alignment() != 0) field(",\"alignment\":", event.alignment());
    if (event.failed()) out += ",\"failed\":true";
    if (event.fresh()) out += ",\"fresh\":true";
    out += "}\n";
    return;
  }
  const char separator = format == DumpFormat::kCsv ? ',' : ' ';
  if (has_thread || event.thread != 0) AppendNumber(event.thread, out); else out += '-';
  out += separator;
  out += OpName(event.op);
  out += separator;
  if (HasSlot(event)) AppendNumber(event.slot, out); else out += '-';
  out += separator;
  AppendNumber(event.size, out);
  out += separator;
  AppendNumber(event.alignment(), out);
  out += separator;
  if (event.failed() && event.fresh()) {
    out += format == DumpFormat::kCsv ? "failed+fresh" : "failed,fresh";
  } else {
    out += event.failed() ? "failed" : event.fresh() ? "fresh" : "-";
  }
  out += '\n';
}

absl::Status DumpTrace(TraceReader& reader, DumpFormat format, const TextSink& sink) {
  std::string out;
  SideLines side;
  if (format == DumpFormat::kText) {
    absl::StrAppend(&out, kFirstLine, "\n");
    for (const TextField& field : kTextFields)
      if (const std::string& value = reader.info().*field.member; !value.empty())
        absl::StrAppend(&out, "#info ", field.name, " ", absl::CEscape(value), "\n");
    for (const auto& [name, value] : Numbers(reader.info()))
      if (value != 0) absl::StrAppend(&out, "#info ", name, " ", value, "\n");
    if (const auto& frees = reader.summary().unmatched_frees) {
      absl::StrAppend(&out, "#unmatched_frees ", frees->unknown, " ", frees->missed, "\n");
    }
    auto modules = reader.ReadModules();
    if (!modules.ok()) return modules.status();
    for (const Module& module : *modules)
      absl::StrAppend(&out, "#module ", module.build_id.empty() ? "-" : absl::CEscape(module.build_id), " ",
                      absl::CEscape(module.name), "\n");
    auto resident = reader.ReadResident();
    auto touched = reader.ReadTouched();
    auto stacks = reader.ReadStacks();
    for (const absl::Status& status : {resident.status(), touched.status(), stacks.status()})
      if (!status.ok()) return status;
    side.resident = *std::move(resident);
    side.touched = *std::move(touched);
    side.stacks = *std::move(stacks);
  } else if (format == DumpFormat::kCsv) {
    out = "thread,event,slot,size,alignment,flags\n";
  }
  std::uint64_t events = 0, objects = 0;
  while (true) {
    auto block = reader.Next();
    if (!block.ok()) return block.status();
    if (block->events.empty()) break;
    events = block->first_event;
    objects = block->first_object;
    for (const Event& event : block->events) {
      AppendEventLine(event, format, out);
      if (out.size() > (1u << 16)) {
        if (!sink(out)) return absl::OkStatus();
        out.clear();
      }
      if (block->restored) continue;
      ++events;
      objects += StartsObject(event);
      // At the same place however the trace is cut into blocks.
      if (side.Due(events, objects)) side.Append(events, objects, out);
    }
  }
  side.Append(~std::uint64_t{0}, ~std::uint64_t{0}, out);
  if (!out.empty()) sink(out);
  return absl::OkStatus();
}

absl::Status LoadTrace(const LineSource& source, const std::function<absl::StatusOr<TraceWriter*>(const TraceInfo&)>& create,
                       const std::string& name, std::uint64_t memory_limit_bytes) {
  if (memory_limit_bytes == 0) memory_limit_bytes = DefaultMemoryLimit();
  TraceInfo info;
  TraceWriter* writer = nullptr;
  std::string text;
  std::uint64_t number = 0;
  absl::flat_hash_map<std::uint32_t, std::uint32_t> slots;  // of the text, to those of the writer
  const auto wrong = [&number](const std::string& what) {
    return absl::InvalidArgumentError(absl::StrCat("line ", number, ": ", what));
  };
  while (source(text)) {
    ++number;
    std::string_view line = text;
    if (number == 1) {
      if (line != kFirstLine) return wrong(absl::StrCat("expected \"", kFirstLine, "\""));
      continue;
    }
    if (line.empty()) continue;
    const std::string_view head = NextWord(line);
    if (head == "#info") {
      if (writer != nullptr) return wrong("#info must come before everything else");
      const std::string field_name(NextWord(line));
      if (!line.empty()) line.remove_prefix(1);
      bool known = false;
      for (const TextField& field : kTextFields) {
        if (field_name != field.name) continue;
        known = absl::CUnescape({line.data(), line.size()}, &(info.*field.member));
        if (!known) return wrong("a broken escape");
      }
      std::uint64_t value = 0;
      if (!known && (!ParseNumber(line, value) || !SetNumber(field_name, value, info)))
        return wrong(absl::StrCat("unknown or broken #info ", field_name));
      continue;
    }
    if (writer == nullptr) {
      auto created = create(info);
      if (!created.ok()) return created.status();
      writer = *created;
    }
    if (!writer->status().ok()) return writer->status();
    if (head == "#module") {
      Module module;
      const std::string_view id = NextWord(line);
      if (!line.empty()) line.remove_prefix(1);
      if ((id != "-" && !absl::CUnescape({id.data(), id.size()}, &module.build_id)) ||
          !absl::CUnescape({line.data(), line.size()}, &module.name))
        return wrong("a broken escape");
      writer->AddModule(module);
      continue;
    }
    if (head == "#unmatched_frees") {
      UnmatchedFrees frees;
      if (!NextNumber(line, frees.unknown) || !NextNumber(line, frees.missed)) return wrong("#unmatched_frees needs two numbers");
      writer->AddUnmatchedFrees(frees);
      continue;
    }
    if (head == "#resident") {
      ResidentSample s;
      for (std::uint64_t* value : {&s.time_ns, &s.event_number, &s.rss_bytes, &s.anonymous_bytes, &s.non_heap_bytes,
                                   &s.peak_rss_bytes, &s.lazy_free_bytes, &s.huge_page_bytes})
        if (!NextNumber(line, *value)) return wrong("#resident needs eight numbers");
      writer->Resident(s);
      continue;
    }
    if (head == "#touched" || head == "#stack") {
      std::uint64_t object = 0;
      if (!NextNumber(line, object)) return wrong("expected the object's number");
      TouchRecord record{object, TouchRecord::When::kFree, {}};
      StackSample sample{object, {}};
      const bool touched = head == "#touched";
      if (touched) {
        const std::string_view when = NextWord(line);
        if (when != "free" && when != "allocation") return wrong("expected \"free\" or \"allocation\"");
        if (when == "allocation") record.when = TouchRecord::When::kAllocation;
      }
      std::uint64_t end = 0;
      for (std::string_view word = NextWord(line); !word.empty(); word = NextWord(line)) {
        std::uint64_t first = 0, second = 0;
        const std::size_t plus = word.find('+');
        if (plus == std::string_view::npos || !ParseNumber(word.substr(0, plus), first) ||
            !ParseNumber(word.substr(plus + 1), second) || first > ~0u || (touched && (second > ~0u || first < end)))
          return wrong("expected NUMBER+NUMBER, ascending");
        end = first + second;
        if (touched && end > ~0u) return wrong("a page number out of range");
        if (touched) record.present.push_back({static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(second)});
        else sample.frames.push_back({static_cast<std::uint32_t>(first), second});
      }
      if (touched) writer->Touched(record);
      else writer->Stack(sample);
      continue;
    }
    if (head.front() == '#') continue;

    std::uint64_t thread = 0, slot = ~0u, size = 0, alignment = 0;
    Op op;
    if (head != "-" && !ParseNumber(head, thread)) return wrong("expected a thread number or -");
    if (!ParseOp(NextWord(line), op)) return wrong("expected the name of an event");
    const std::string_view slot_word = NextWord(line);
    if (slot_word != "-" && !ParseNumber(slot_word, slot)) return wrong("expected a slot or -");
    if (!NextNumber(line, size) || !NextNumber(line, alignment)) return wrong("expected size and alignment");
    const std::string_view flags = NextWord(line);
    const bool failed = flags == "failed" || flags == "failed,fresh", fresh = flags == "fresh" || flags == "failed,fresh";
    if (!failed && !fresh && flags != "-") return wrong("expected -, failed or fresh");
    if (!NextWord(line).empty()) return wrong("more than six fields");
    if (thread > 0xffff || slot > ~0u) return wrong("a number out of range");
    const auto thread_number = static_cast<std::uint16_t>(thread);
    const auto text_slot = static_cast<std::uint32_t>(slot);
    Event event{op, 0, thread_number, text_slot, size};
    if (fresh) event.flags |= Event::kFresh;
    const bool realloc = op == Op::kRealloc || op == Op::kReallocArray;
    if (op == Op::kTime) {
      writer->Time(size);
    } else if (failed) {
      std::uint32_t of = ~0u;
      if (realloc && slot_word != "-") {
        const auto found = slots.find(text_slot);
        if (found == slots.end()) return wrong("the slot holds no object");
        of = found->second;
      }
      writer->Failure(op, of, size, alignment, thread_number);
    } else if (StartsObject(event)) {
      if (slot_word == "-") return wrong("an allocation needs a slot");
      const auto [at, is_new] = slots.try_emplace(text_slot, 0);
      if (!is_new) return wrong("the slot holds an object already");
      if (slots.size() * kLoadBytes > memory_limit_bytes)
        return OverMemoryLimit(name, static_cast<double>(slots.size() * kLoadBytes), absl::StrCat(slots.size(), " live objects"), memory_limit_bytes);
      at->second = writer->Allocate(op, size, alignment, thread_number);
    } else if (op == Op::kFree || realloc) {
      const auto found = slots.find(text_slot);
      if (found == slots.end()) return wrong("the slot holds no object");
      if (realloc) {
        writer->Reallocate(op, found->second, size, thread_number);
      } else {
        writer->Free(found->second, thread_number);
        slots.erase(found);
      }
    } else {
      if (slot_word == "-") event.slot = 0;
      writer->Append(event);
    }
  }
  if (writer == nullptr) {
    if (number == 0) return absl::InvalidArgumentError("the input is empty; give what heaptape dump printed");
    auto created = create(info);
    if (!created.ok()) return created.status();
    writer = *created;
  }
  return writer->status();
}

}  // namespace heaptape
