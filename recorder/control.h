// How `heaptape ctl` and a running writer speak: a small shared mapping that the writer makes and that is
// opened through /proc/WRITER/fd. No socket, no file, nothing in the recorded program; whoever may not look
// into the writer's descriptors (another user) cannot reach it.
//
// Root can look into every process, and every process can make such a block. So a block is trusted only if its writer belongs
// to root, to the caller, or to the user of the process that it claims to record. What is in it is shown, and nothing more.

#ifndef HEAPTAPE_RECORDER_CONTROL_H_
#define HEAPTAPE_RECORDER_CONTROL_H_

#include <atomic>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace heaptape {

enum class Command : std::uint32_t { kNone = 0, kStart, kStop, kFlush };

inline constexpr char kControlName[] = "heaptape-control";
inline constexpr char kWriterName[] = "heaptape-writer";
inline constexpr std::uint64_t kControlMagic = 0x32656c7470616568;  // changes with the layout

struct ControlBlock {
  std::uint64_t magic;
  std::atomic<std::int32_t> target_pid;
  std::atomic<std::int32_t> writer_pid;
  std::atomic<std::uint32_t> recording;  // 0: suspended or ended
  std::atomic<std::uint32_t> end_reason;
  std::atomic<std::uint64_t> events;
  std::atomic<std::uint64_t> events_per_second;  // over the last second
  std::atomic<std::uint64_t> live_objects;
  std::atomic<std::uint64_t> live_bytes;
  std::atomic<std::uint64_t> bytes_written;
  std::atomic<std::uint64_t> segments;
  std::atomic<std::uint64_t> waits;
  std::atomic<std::uint64_t> wait_ns;
  std::atomic<std::uint64_t> big_waits;
  std::atomic<std::uint64_t> big_wait_ns;
  std::atomic<std::uint64_t> lost;
  std::atomic<std::uint64_t> disk_free_bytes;
  std::atomic<std::uint64_t> running_ns;
  std::atomic<std::uint64_t> writer_cpu_ns;
  std::atomic<std::uint64_t> writer_peak_rss_bytes;
  char output[4096];
  std::atomic<Command> command;          // set by ctl
  std::atomic<std::uint32_t> commands_done;
};

// The block of the recording of process `pid` (or whose writer is `pid`), mapped for good. NotFound where
// there is none of a trusted writer; PermissionDenied where it may belong to somebody else.
absl::StatusOr<ControlBlock*> FindControlBlock(int pid);

// In the writer: makes the block. Null where the kernel gives none; the recording goes on without.
ControlBlock* MakeControlBlock();

}  // namespace heaptape

#endif  // HEAPTAPE_RECORDER_CONTROL_H_
