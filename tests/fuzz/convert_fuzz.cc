// Any bytes as another tool's recording: HEAPTAPE_FUZZ_FORMAT says whose.
//
// The writer here compresses nothing and stops the program where an importer breaks the writer's rules.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "traces/convert/formats.h"

namespace {

using namespace heaptape;

class CheckingWriter final : public TraceWriter {
 public:
  std::uint32_t Allocate(Op op, std::uint64_t, std::uint64_t, std::uint16_t thread) override {
    const bool realloc = op == Op::kRealloc || op == Op::kReallocArray;
    Check(StartsObject({op, static_cast<std::uint8_t>(realloc ? Event::kFresh : 0), 0, 0, 0}));
    CheckThread(thread);
    ++objects_;
    if (free_.empty()) {
      live_.push_back(true);
      return static_cast<std::uint32_t>(live_.size() - 1);
    }
    const std::uint32_t slot = free_.back();
    free_.pop_back();
    live_[slot] = true;
    return slot;
  }
  void Free(std::uint32_t slot, std::uint16_t thread) override {
    CheckThread(thread);
    Check(slot < live_.size() && live_[slot]);
    live_[slot] = false;
    free_.push_back(slot);
  }
  void Reallocate(Op, std::uint32_t slot, std::uint64_t, std::uint16_t thread) override {
    CheckThread(thread);
    Check(slot < live_.size() && live_[slot]);
  }
  void Failure(Op, std::uint32_t slot, std::uint64_t, std::uint64_t, std::uint16_t thread) override {
    CheckThread(thread);
    Check(slot == ~0u || (slot < live_.size() && live_[slot]));
  }
  void Append(const Event& event) override {
    if (threads_.size() <= event.thread) threads_.resize(std::size_t{event.thread} + 1);
    Check(event.op == Op::kThreadStart || event.op == Op::kThreadEnd);
    Check(threads_[event.thread] == (event.op == Op::kThreadEnd));
    threads_[event.thread] = event.op == Op::kThreadStart;
  }
  void Time(std::uint64_t) override {}
  void AddUnmatchedFrees(const UnmatchedFrees&) override {}
  void Resident(const ResidentSample&) override {}
  void Touched(const TouchRecord&) override {}
  std::uint32_t AddModule(const Module&) override { return 0; }
  void Stack(const StackSample&) override {}
  const LiveObject* Object(std::uint32_t) const override { return nullptr; }
  std::uint32_t slot_count() const override { return static_cast<std::uint32_t>(live_.size()); }
  std::uint64_t event_count() const override { return 0; }
  std::uint64_t object_count() const override { return objects_; }
  std::uint64_t live_objects() const override { return live_.size() - free_.size(); }
  std::uint64_t live_bytes() const override { return 0; }
  std::uint64_t bytes_written() const override { return 0; }
  absl::Status Flush() override { return {}; }
  absl::Status Finish() override { return {}; }
  absl::Status status() const override { return {}; }

 private:
  static void Check(bool holds) {
    if (!holds) std::abort();
  }
  void CheckThread(std::uint16_t thread) const { Check(thread < threads_.size() && threads_[thread]); }

  std::vector<bool> live_, threads_ = std::vector<bool>(1, true);
  std::vector<std::uint32_t> free_;
  std::uint64_t objects_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const ForeignFormat& format = *FindForeignFormat(HEAPTAPE_FUZZ_FORMAT);
  CheckingWriter writer;
  std::span<const std::uint8_t> rest(data, size);
  ByteReader in([&rest](std::span<std::uint8_t> out) {
    const std::size_t count = std::min(out.size(), rest.size());
    std::copy_n(rest.begin(), count, out.begin());
    rest = rest.subspan(count);
    return count;
  }, kForeignHeadBytes);  // a small buffer is filled often, and soon
  (void)format.recognise(in.Head(kForeignHeadBytes));
  ImportedProgram program({}, [&](const TraceInfo&) { return &writer; });
  (void)format.read(in, program);
  (void)program.Finish();
  (void)program.notes();
  return 0;
}
