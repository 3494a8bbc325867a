// A trace file that tests write and read back.

#ifndef HEAPTAPE_TESTS_TRACES_TEMPORARY_TRACE_H_
#define HEAPTAPE_TESTS_TRACES_TEMPORARY_TRACE_H_

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "traces/event.h"
#include "traces/trace_reader.h"
#include "traces/trace_writer.h"

namespace heaptape {

// A trace file in a folder of its own, gone with the object.
class TemporaryTrace {
 public:
  explicit TemporaryTrace(const TraceInfo& info = {.program = "test", .time_resolution_ns = 1'000'000}) {
    char name[] = "/tmp/heaptape-test-XXXXXX";
    folder_ = mkdtemp(name);
    auto writer = TraceWriter::Create(path(), info);
    EXPECT_TRUE(writer.ok()) << writer.status();
    writer_ = *std::move(writer);
  }
  ~TemporaryTrace() {
    writer_.reset();
    for (const char* suffix : {"", ".part"}) std::remove((path() + suffix).c_str());
    std::remove(folder_.c_str());
  }
  TemporaryTrace(const TemporaryTrace&) = delete;
  TemporaryTrace& operator=(const TemporaryTrace&) = delete;

  std::string path() const { return folder_ + "/t.tape"; }
  TraceWriter& writer() { return *writer_; }

  // Finishes the file and opens it.
  std::unique_ptr<TraceReader> Open() {
    if (!finished_) {
      EXPECT_TRUE(writer_->Finish().ok());
    }
    finished_ = true;
    auto reader = TraceReader::Open(path());
    EXPECT_TRUE(reader.ok()) << reader.status();
    return *std::move(reader);
  }

  std::vector<Event> Events() {
    std::vector<Event> events;
    const auto reader = Open();
    for (auto block = reader->Next(); block.ok() && !block->events.empty(); block = reader->Next()) {
      events.insert(events.end(), block->events.begin(), block->events.end());
    }
    return events;
  }

 private:
  std::string folder_;
  std::unique_ptr<TraceWriter> writer_;
  bool finished_ = false;
};

}  // namespace heaptape

#endif  // HEAPTAPE_TESTS_TRACES_TEMPORARY_TRACE_H_
