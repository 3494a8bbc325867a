// The pool of one region, read from the writer's side: chunks to ordered events, page probes served in between.
//
// The program can write anything into the region at any time, while it is being read. So every value is copied once,
// bounded where it is copied, and never read again for a decision; no loop depends on the region for its end. What makes
// no sense is counted (malformed()) and left out. One thread.

#ifndef HEAPTAPE_RECORDER_WRITER_POOL_H_
#define HEAPTAPE_RECORDER_WRITER_POOL_H_

#include <sys/types.h>

#include <bitset>
#include <cstdint>
#include <functional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "recorder/modules.h"
#include "recorder/process_memory.h"
#include "recorder/raw_event.h"
#include "recorder/recording.h"

namespace heaptape {

class Pool {
 public:
  // All must outlive the pool.
  Pool(Region* region, ProcessMemory* memory, Modules* modules, Recording* recording)
      : region_(region), memory_(memory), modules_(modules), recording_(recording) {}

  // Reads what has been published, of chunks that are still being filled only when `open` is set. Returns the number of
  // events.
  std::uint64_t Poll(bool open);

  // Called between all longer steps: threads wait for it.
  void ServeProbes();
  // How many probes were asked for so far, as far as ServeProbes() knows.
  std::uint64_t probes_asked() const { return probes_asked_; }
  // About once a second: a thread that was killed, or jumped out of its wait, does not come for its probe.
  void ForgetProbes();

  // Chunks whose threads were killed without a word come back. Returns their threads' serials. `is_alive` is asked for
  // a thread id in the program's pid namespace.
  std::vector<std::uint32_t> Reclaim(const std::function<bool(std::int32_t tid)>& is_alive);

  // Values that no preload writes.
  std::uint64_t malformed() const { return malformed_; }

 private:
  // A chunk to be read.
  struct Turn {
    std::int64_t ahead;  // of its first event
    std::uint32_t chunk;
    ChunkState state;
  };

  std::uint32_t UsedChunks() const;
  RawEvent Load(std::uint32_t chunk, std::uint32_t slot) const;
  std::uint32_t FirstNumber(std::uint32_t chunk) const;
  std::uint32_t Serial(std::uint64_t claimed);
  std::uint64_t ReadOwned(std::uint32_t chunk, ChunkState state);
  std::uint64_t ReadShared(std::uint32_t chunk);
  void TakeProbe(std::uint64_t ticket, const OrderedEvent& event);
  void Release(std::uint32_t chunk);

  Region* region_;
  ProcessMemory* memory_;
  Modules* modules_;
  Recording* recording_;
  std::uint64_t probes_asked_ = 0;
  std::uint64_t old_tickets_ = 0;  // those up to here were given out before the last ForgetProbes()
  absl::flat_hash_map<std::uint64_t, std::vector<PageRange>> probes_;  // by ticket, until its event comes
  std::vector<Turn> turns_;
  std::vector<std::uint64_t> addresses_;  // of the stack that is being read
  std::uint32_t read_[kChunkCount] = {};
  std::bitset<kChunkEvents / 2> taken_[kChunkCount];
  std::uint64_t malformed_ = 0;
};

}  // namespace heaptape

#endif  // HEAPTAPE_RECORDER_WRITER_POOL_H_
