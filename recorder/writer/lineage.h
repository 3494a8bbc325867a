// The recorded program and the processes it forked: which region each has, and which of them goes on as a daemon.
//
// The fork slots lie in memory that the program can write. A pid read from one is only compared and opened, with the
// rights of the program's own user; numbers of regions are bounded before use.

#ifndef HEAPTAPE_RECORDER_WRITER_LINEAGE_H_
#define HEAPTAPE_RECORDER_WRITER_LINEAGE_H_

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <optional>

#include "recorder/raw_event.h"

namespace heaptape {

// A process that is recorded, as the writer sees it.
struct Target {
  pid_t pid = 0;
  int pidfd = -1;
  ProcessFiles files;
};

// When this process started, in the kernel's clock ticks since boot; 0 where /proc does not tell.
std::uint64_t StartTicks();

// The process that `claimed` names in its own pid namespace and that `parent` forked. Nothing where it is gone or cannot
// be told from others: where the parent has ended, a child is one that started no earlier than `not_before` and, unless this
// process is root's, belongs to the same user.
std::optional<Target> OpenChild(pid_t claimed, pid_t parent, std::uint64_t not_before);

// Which writer follows the process of each region: its pid, 0 where none does. Shared by the writers of a recording alone, so
// that the program cannot have a region followed twice, whatever it writes.
using Followers = std::atomic<std::int32_t>[kRegionsMax];
// Never null: ends the process where there is no memory.
Followers* MakeFollowers();

bool IsAlive(int pidfd);

class Lineage {
 public:
  Lineage(Region* first, Region* spares, std::uint32_t count) : first_(first), spares_(spares), count_(count) {}

  std::uint32_t count() const { return count_; }
  Region* At(std::uint32_t index) const { return index == 0 ? first_ : &spares_[index - 1]; }
  ForkSlot& Slot(std::uint32_t index) const { return first_->forks[index]; }
  std::uint32_t children_left_out() const { return first_->children_left_out.load(); }

  // The next process to claim it finds zeros.
  void GiveBack(std::uint32_t index) const;
  // Process `own` has ended. Where a descendant of it goes on in a session other than `session`, that one's trace is the
  // one asked for: it gets the role of `own`, and its pid is returned. A child that was just forked may need a moment to
  // leave the session.
  std::optional<pid_t> HandOver(std::uint32_t own, pid_t session) const;
  // Descendants of `own` that were followed in case they become daemons are not wanted any more.
  void DropChildren(std::uint32_t own) const;
  // Is the recording of a process that might become a daemon still wanted, so long after its start?
  bool IsStillWanted(std::uint32_t own, bool in_time) const;

 private:
  bool IsDescendant(std::uint32_t index, std::uint32_t of) const;

  Region* first_;
  Region* spares_;
  std::uint32_t count_;
};

}  // namespace heaptape

#endif  // HEAPTAPE_RECORDER_WRITER_LINEAGE_H_
