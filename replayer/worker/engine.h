// Executes the ring's events against one allocator: the inner loop of a replay.

#ifndef HEAPTAPE_REPLAYER_WORKER_ENGINE_H_
#define HEAPTAPE_REPLAYER_WORKER_ENGINE_H_

#include <cstdint>

#include "allocators/allocator.h"
#include "replayer/worker/protocol.h"
#include "replayer/worker/threads.h"

namespace heaptape::worker {

class Replayer {
 public:
  // Maps every table the run needs. To be called before the baseline is taken.
  bool Prepare(SharedHeader& shared);
  // Replays to the end of the ring. By the main thread.
  void Run(const AllocatorFunctions& functions);

 private:
  // Replays events until the end (true) or until another thread's turn (lock-step; false).
  template <bool kLockstep>
  bool Advance(std::uint32_t self);
  enum class Turn { kMine, kDone, kAgain, kOver };
  template <bool kLockstep>
  Turn TakeTurn(const Event& event, std::uint32_t self);
  // What changes with each event: in registers while a thread has its turn, here between turns and for samples.
  struct Progress {
    std::uint64_t tail = 0;  // of the ring
    std::uint64_t stop = 0;  // where the ring is to be looked after next
    std::uint64_t live_bytes = 0;
    std::uint64_t live_objects = 0;
    std::uint64_t pointer_hash = 0;
  };
  static void RunThread(void* replayer, std::uint32_t thread);

  // Waits until there is an entry at the tail, gives room back, and says how far the ring may be read.
  std::uint64_t NextStop();
  std::uint64_t AwaitEntries();
  void PublishTail();
  void TakeSample(const Event& entry);
  void Touch(const Event& entry);
  void TouchBlock(std::uintptr_t from, std::uintptr_t to);
  // Step by step, so that the memory limit stops it in time.
  void TouchWithinLimit(std::uintptr_t from, std::uintptr_t to);
  void WriteHeapMap();
  void MarkUsed(std::uint64_t block, std::uint64_t bytes);
  void KeepPace();
  void NoteFailure(const Event& event);
  void Store(Progress& progress, std::uint32_t slot, void* block, std::uint64_t bytes);
  void Free(Progress& progress, std::uint32_t slot);
  std::uint64_t SizeIn(std::uint32_t slot) const;

  SharedHeader* shared_ = nullptr;
  const Event* ring_ = nullptr;
  std::uint64_t ring_mask_ = 0;
  WorkerSample* samples_ = nullptr;
  AllocatorFunctions functions_;
  RecordedThreads threads_;

  // Low 48 bits: the object's address; high 16: its size, kSizeElsewhere if that is larger.
  std::uint64_t* slots_ = nullptr;
  std::uint64_t* large_sizes_ = nullptr;  // by slot; only the pages in use exist

  LiveBlock* blocks_ = nullptr;          // null: no heap maps are asked for
  std::uint8_t* used_pages_ = nullptr;

  Progress progress_;
  std::uint64_t known_head_ = 0;
  std::uint64_t touch_limit_ = 0;   // smaller blocks are touched by rule at once
  std::uint64_t resized_from_ = 0;  // old size of the block last started (0) or resized, if it is large
  std::uint64_t thread_changes_ = 0;
  bool lockstep_ = false;
};

}  // namespace heaptape::worker

#endif  // HEAPTAPE_REPLAYER_WORKER_ENGINE_H_
