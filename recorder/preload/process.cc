// After the constructor nothing here makes a system call: forked children may be within a seccomp filter.

#include "recorder/preload/process.h"

#include <limits.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "recorder/preload/chunks.h"
#include "recorder/preload/large_blocks.h"
#include "recorder/preload/publish.h"

namespace heaptape {
namespace {

enum class Setup : int { kNone, kBusy, kDone };
std::atomic<Setup> setup{Setup::kNone};

constexpr std::uint64_t kLastProbePatienceNs = 200'000'000;
constexpr std::uint64_t kFinishPatienceNs = 10'000'000'000;

// Claimed by the prepare handler of the fork that this thread is in. Several threads may fork at once.
thread_local std::uint32_t region_for_child __attribute__((tls_model("initial-exec")));

Region* MapRegions(std::uint32_t count) {
  const std::size_t bytes = sizeof(Region) * count;
  const long memory = SystemCall(SYS_mmap, 0, static_cast<long>(bytes), PROT_READ | PROT_WRITE,
                                 MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory < 0 && memory > -4096) return nullptr;
  SystemCall(SYS_madvise, memory, static_cast<long>(bytes), MADV_DONTDUMP);
  return reinterpret_cast<Region*>(memory);
}

// The number of a region for a child; 0: none is free.
std::uint32_t ClaimRegion() {
  for (std::uint32_t i = 1; i < settings.region_count; ++i) {
    std::uint32_t unclaimed = 0;
    ForkSlot& slot = settings.first->forks[i];
    if (!slot.claimed.compare_exchange_strong(unclaimed, 1, memory_order_acq_rel)) continue;
    slot.parent.store(own_region, memory_order_relaxed);
    return i;
  }
  return 0;
}

Region* EnterChild() {
  const std::uint32_t index = region_for_child;
  if (index == 0) {
    is_off.store(true, memory_order_relaxed);
    return nullptr;
  }
  region_for_child = 0;
  Region* region = RegionAt(index);
  Region* parent = RegionAt(own_region);
  ForkSlot& slot = settings.first->forks[index];
  own_region = index;
  PrepareRegion(region);
  for (std::uint32_t i = 0; i < kBigFilterSize; ++i) {
    region->big_filter[i].store(parent->big_filter[i].load(memory_order_relaxed), memory_order_relaxed);
  }
  region->filtered.store(parent->filtered.load(memory_order_relaxed), memory_order_relaxed);
  region->fork_allowed.store(parent->fork_allowed.load(memory_order_relaxed), memory_order_relaxed);
  slot.role.store(settings.children ? ProcessRole::kChild : ProcessRole::kProvisional, memory_order_relaxed);
  // The one thread of a forked process has the process's id.
  const std::int32_t pid = ThreadId();
  slot.child_pid.store(pid > 0 ? pid : -1, memory_order_release);
  // What this thread holds is a chunk of its parent's.
  thread.generation = 0;
  thread.attached = 0;
  region->generation.store(1, memory_order_release);
  process.region.store(region, memory_order_release);
  return region;
}

void BeforeFork() {
  Region* region = process.region.load(memory_order_acquire);
  region_for_child = 0;
  if (!region || region->generation.load(memory_order_acquire) == 0) return;
  if (region->fork_allowed.load(memory_order_acquire)) region_for_child = ClaimRegion();
  if (region_for_child == 0 && settings.children) settings.first->children_left_out.fetch_add(1, memory_order_relaxed);
  RecordSlow(RawOp::kFork, 0, region_for_child, {});
}

void AfterForkInParent() { region_for_child = 0; }

void AfterForkInChild() {
  if (!process.region.load(memory_order_acquire) && setup.load(memory_order_acquire) == Setup::kDone &&
      !is_off.load(memory_order_relaxed)) {
    EnterChild();
  }
}

// Key destructors run in up to four rounds; coming back in each, the last one is after everybody else's.
void ThreadExit(void*) {
  Region* region = process.region.load(memory_order_acquire);
  if (!region || thread.region != region || thread.ended) return;
  if (thread.exit_rounds < PTHREAD_DESTRUCTOR_ITERATIONS) {
    ++thread.exit_rounds;
    ComeBackAtExit();
    return;
  }
  RecordSlow(RawOp::kThreadEnd, 0, 0, {});
  thread.ended = true;
  thread.generation = 0;
  thread.attached = 0;
  if (thread.header) CloseChunk(region);
}

// exit(): after the program's own handlers. Large blocks that are alive now have no free at which their pages would be
// probed. With PID 1 the whole namespace is killed, the writer too, so it must have finished before.
__attribute__((destructor)) void AtExit() {
  Region* region = process.region.load(memory_order_acquire);
  if (!region || region->generation.load(memory_order_acquire) == 0 ||
      region->writer_state.load(memory_order_acquire) != WriterState::kRunning) {
    return;
  }
  if (settings.ends_with_its_namespace && own_region == 0) return AwaitWish(region, LastWish::kFinish, kFinishPatienceNs);
  if (!record_large.load(memory_order_relaxed)) return;
  bool any = false;
  for (const auto& count : region->big_filter) any |= count.load(memory_order_relaxed) != 0;
  if (any) AwaitWish(region, LastWish::kProbe, kLastProbePatienceNs);
}

}  // namespace

Region* EnterProcess() {
  Setup expected = Setup::kNone;
  if (setup.load(memory_order_acquire) == Setup::kDone) return EnterChild();
  if (!setup.compare_exchange_strong(expected, Setup::kBusy)) return nullptr;
  Region* first = MapRegions(1);
  const long wiped = SystemCall(SYS_madvise, reinterpret_cast<long>(&process), sizeof(process), MADV_WIPEONFORK);
  if (!first || wiped != 0) {
    TurnOff();
  } else {
    settings.first = first;
    settings.region_count = 1;
    settings.max_wait_ns = RecorderOptions().max_wait_ns;
    PrepareRegion(first);
    first->forks[0].claimed.store(1, memory_order_relaxed);
    first->generation.store(1, memory_order_release);
    process.region.store(first, memory_order_release);
  }
  setup.store(Setup::kDone, memory_order_release);
  return process.region.load(memory_order_acquire);
}

void PrepareForChildren(std::uint32_t count) {
  settings.spares = MapRegions(count);
  if (settings.spares) settings.region_count = count + 1;
}

void ReleaseSpares() {
  for (std::uint32_t index; (index = ClaimRegion()) != 0;) {
    ForkSlot& slot = settings.first->forks[index];
    slot.parent.store(kRegionsMax, memory_order_relaxed);  // nobody's child
    slot.role.store(ProcessRole::kDropped, memory_order_relaxed);
    SystemCall(SYS_munmap, reinterpret_cast<long>(RegionAt(index)), sizeof(Region));
  }
}

void InstallHandlers() {
  MakeExitKey(ThreadExit);
  pthread_atfork(BeforeFork, AfterForkInParent, AfterForkInChild);
}

void TurnOff() {
  is_off.store(true, memory_order_relaxed);
  process.region.store(nullptr, memory_order_release);
}

}  // namespace heaptape
