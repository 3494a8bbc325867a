// A trace file that tests write and read back.

#ifndef HEAPTAPE_TESTS_TRACES_TEMPORARY_TRACE_H_
#define HEAPTAPE_TESTS_TRACES_TEMPORARY_TRACE_H_

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "traces/event.h"
#include "traces/trace_reader.h"
#include "traces/trace_writer.h"

namespace heaptape {

// Damages a file in its middle. Of a trace in small blocks parity repairs few bytes, and not those of several blocks.
inline void OverwriteMiddle(const std::string& path, std::size_t bytes) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(std::filesystem::file_size(path) / 2));
  file << std::string(bytes, 'U');
  EXPECT_TRUE(file.flush()) << path;
}

// A trace file in a folder of its own, gone with the object.
class TemporaryTrace {
 public:
  explicit TemporaryTrace(const TraceInfo& info = {.program = "test", .time_resolution_ns = 1'000'000},
                          const TraceWriterOptions& options = {}) {
    char name[] = "/tmp/heaptape-test-XXXXXX";
    folder_ = mkdtemp(name);
    auto writer = TraceWriter::Create(path(), info, options);
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
