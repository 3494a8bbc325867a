// The functions of <heaptape/trace.h> over the reader.

#include "traces/library/heaptape/trace.h"

#include <cstddef>
#include <cstdio>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "traces/event.h"
#include "traces/trace_info.h"
#include "traces/trace_reader.h"

// Events are handed out where they lie.
static_assert(sizeof(heaptape_event) == sizeof(heaptape::Event));
static_assert(offsetof(heaptape_event, operation) == offsetof(heaptape::Event, op));
static_assert(offsetof(heaptape_event, flags) == offsetof(heaptape::Event, flags));
static_assert(offsetof(heaptape_event, thread) == offsetof(heaptape::Event, thread));
static_assert(offsetof(heaptape_event, slot) == offsetof(heaptape::Event, slot));
static_assert(offsetof(heaptape_event, size) == offsetof(heaptape::Event, size));
static_assert(HEAPTAPE_ALIGNMENT_MASK == heaptape::Event::kAlignmentMask);
static_assert(HEAPTAPE_CALL_FAILED == heaptape::Event::kFailed && HEAPTAPE_FRESH == heaptape::Event::kFresh);
static_assert(HEAPTAPE_LOST == static_cast<int>(heaptape::Op::kLost) && heaptape::kOpCount == HEAPTAPE_LOST + 1);

struct heaptape_trace {
  std::unique_ptr<heaptape::TraceReader> reader;
  heaptape_info info = {};
  heaptape_summary summary = {};
  heaptape_batch batch = {};
  std::vector<heaptape_resident> resident;
  bool resident_read = false;
  std::string message;
};

namespace {

heaptape_status StatusOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return HEAPTAPE_OK;
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kPermissionDenied:
      return HEAPTAPE_NOT_FOUND;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kUnimplemented:
      return HEAPTAPE_NO_TRACE;
    case absl::StatusCode::kDataLoss:
      return HEAPTAPE_DAMAGED;
    default:
      return HEAPTAPE_FAILED;
  }
}

// Calls `body`, which returns absl::Status, lets no exception out, and keeps the sentence of a failure.
template <typename Body>
heaptape_status Guarded(std::string& message, const Body& body) {
  try {
    const absl::Status status = body();
    message = std::string(status.message());
    return StatusOf(status);
  } catch (const std::bad_alloc&) {
    message = "out of memory";  // short enough to need none
    return HEAPTAPE_FAILED;
  } catch (const std::exception& error) {
    message = error.what();
    return HEAPTAPE_FAILED;
  }
}

void Fill(heaptape_trace& trace) {
  const heaptape::TraceInfo& info = trace.reader->info();
  trace.info = {.program = info.program.c_str(),
                .c_library = info.c_library.c_str(),
                .allocator = info.allocator.c_str(),
                .allocator_version = info.allocator_version.c_str(),
                .allocator_build_id = info.allocator_build_id.c_str(),
                .kernel = info.kernel.c_str(),
                .heaptape_version = info.heaptape_version.c_str(),
                .memory_bytes = info.memory_bytes,
                .start_unix_seconds = info.start_unix_seconds,
                .time_resolution_ns = info.time_resolution_ns,
                .cpu_count = info.cpu_count,
                .page_bytes = info.page_bytes,
                .segment_start_ns = info.segment_start_ns,
                .segment_number = info.segment_number};
  const heaptape::TraceSummary& summary = trace.reader->summary();
  trace.summary = {.file_bytes = summary.file_bytes,
                   .event_count = summary.event_count,
                   .object_count = summary.object_count,
                   .peak_live_objects = summary.peak_live_objects,
                   .peak_live_bytes = summary.peak_live_bytes,
                   .duration_ns = summary.duration_ns,
                   .peak_threads = summary.peak_threads,
                   .lost_events = summary.lost_events,
                   .complete = summary.complete,
                   .digest = summary.digest.c_str()};
}

}  // namespace

extern "C" {

heaptape_status heaptape_open(const char* path, heaptape_trace** trace, char* message) {
  if (message != nullptr) *message = 0;
  if (trace == nullptr) return HEAPTAPE_NO_TRACE;
  *trace = nullptr;
  std::string sentence;
  const heaptape_status status = Guarded(sentence, [&]() -> absl::Status {
    if (path == nullptr) return absl::InvalidArgumentError("no path given; give the path of a trace");
    absl::StatusOr<std::unique_ptr<heaptape::TraceReader>> reader = heaptape::TraceReader::Open(path);
    if (!reader.ok()) return reader.status();
    auto opened = std::make_unique<heaptape_trace>();
    opened->reader = *std::move(reader);
    Fill(*opened);
    *trace = opened.release();
    return absl::OkStatus();
  });
  if (message != nullptr) std::snprintf(message, HEAPTAPE_MESSAGE_BYTES, "%s", sentence.c_str());
  return status;
}

void heaptape_close(heaptape_trace* trace) { delete trace; }

const heaptape_info* heaptape_get_info(const heaptape_trace* trace) { return &trace->info; }
const heaptape_summary* heaptape_get_summary(const heaptape_trace* trace) { return &trace->summary; }

heaptape_status heaptape_next(heaptape_trace* trace, const heaptape_batch** batch) {
  trace->batch = {};
  *batch = &trace->batch;
  return Guarded(trace->message, [&]() -> absl::Status {
    const absl::StatusOr<heaptape::EventBlock> block = trace->reader->Next();
    if (!block.ok()) return block.status();
    trace->batch = {.events = reinterpret_cast<const heaptape_event*>(block->events.data()),
                    .event_count = block->events.size(),
                    .first_event = block->first_event,
                    .start_time_ns = block->start_time_ns,
                    .end_time_ns = block->end_time_ns,
                    .restored = block->restored};
    return absl::OkStatus();
  });
}

heaptape_status heaptape_seek(heaptape_trace* trace, uint64_t event) {
  return Guarded(trace->message, [&] { return trace->reader->Seek(event); });
}

heaptape_status heaptape_seek_time(heaptape_trace* trace, uint64_t time_ns) {
  return Guarded(trace->message, [&] { return trace->reader->SeekTime(time_ns); });
}

heaptape_status heaptape_get_resident(heaptape_trace* trace, const heaptape_resident** samples, size_t* count) {
  *samples = nullptr;
  *count = 0;
  const heaptape_status status = Guarded(trace->message, [&]() -> absl::Status {
    if (trace->resident_read) return absl::OkStatus();
    const absl::StatusOr<std::vector<heaptape::ResidentSample>> read = trace->reader->ReadResident();
    if (!read.ok()) return read.status();
    trace->resident.reserve(read->size());
    for (const heaptape::ResidentSample& sample : *read) {
      trace->resident.push_back({.time_ns = sample.time_ns,
                                 .event_number = sample.event_number,
                                 .rss_bytes = sample.rss_bytes,
                                 .anonymous_bytes = sample.anonymous_bytes,
                                 .non_heap_bytes = sample.non_heap_bytes,
                                 .peak_rss_bytes = sample.peak_rss_bytes});
    }
    trace->resident_read = true;
    return absl::OkStatus();
  });
  if (status == HEAPTAPE_OK) {
    *samples = trace->resident.data();
    *count = trace->resident.size();
  }
  return status;
}

const char* heaptape_message(const heaptape_trace* trace) { return trace->message.c_str(); }

const char* heaptape_damage(const heaptape_trace* trace, size_t number) {
  const std::vector<std::string>& damage = trace->reader->damage();
  return number < damage.size() ? damage[number].c_str() : nullptr;
}

const char* heaptape_operation_name(int operation) {
  const bool known = operation >= 0 && operation < heaptape::kOpCount;
  return known ? heaptape::OpName(static_cast<heaptape::Op>(operation)) : "unknown";
}

const char* heaptape_version(void) { return HEAPTAPE_VERSION; }

}  // extern "C"
