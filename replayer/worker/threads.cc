#include "replayer/worker/threads.h"

#include <asm/prctl.h>
#include <immintrin.h>
#include <linux/futex.h>
#include <sys/auxv.h>
#include <sys/mman.h>

#include "replayer/worker/kernel.h"
#include "replayer/worker/machine.h"
#include "replayer/worker/pool.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

namespace heaptape::worker {
namespace {

constexpr std::uintptr_t kTableAddress = kOwnAddresses + (std::uintptr_t{2} << 40);
constexpr std::uintptr_t kStacksAddress = kOwnAddresses + (std::uintptr_t{3} << 40);
// Also holds the thread's static TLS and the frame of a caught system call.
constexpr std::size_t kStackBytes = 256 << 10;
constexpr std::size_t kStackPresentBytes = 32 << 10;
constexpr unsigned kHwcap2FsGsBase = 1 << 1;

__attribute__((target("fsgsbase"))) void WriteFsBase(std::uint64_t base) { _writefsbase_u64(base); }

std::uint64_t ReadFsBase() {
  std::uint64_t base = 0;
  Kernel(SYS_arch_prctl, ARCH_GET_FS, &base);
  return base;
}

void Wait(std::atomic<std::uint32_t>& word, std::uint32_t seen) {
  while (word.load(std::memory_order_acquire) == seen) {
    Kernel(SYS_futex, &word, FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
  }
}

void Signal(std::atomic<std::uint32_t>& word) {
  word.fetch_add(1, std::memory_order_release);
  Kernel(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

}  // namespace

bool RecordedThreads::Prepare(std::uint32_t count, bool trust_fsgsbase) {
  fsgsbase_ = trust_fsgsbase && (getauxval(AT_HWCAP2) & kHwcap2FsGsBase) != 0;
  // One more than recorded: CanWearIdentities() borrows it.
  threads_ = static_cast<Thread*>(MapOwnMemory(kTableAddress, (count + 1) * sizeof(Thread), true));
  void* stacks = MapOwnMemory(kStacksAddress, (count + 1) * kStackBytes, false);
  if (threads_ == nullptr || stacks == nullptr) return false;
  for (std::uint32_t i = 0; i <= count; ++i) {
    threads_[i].owner = this;
    threads_[i].number = i;
  }
  threads_[0].alive = true;
  threads_[0].fs_base = ReadFsBase();
  return true;
}

bool RecordedThreads::CanWearIdentities() {
  constexpr std::uint32_t kBorrowed = 1;
  const Body body = body_;
  body_ = nullptr;
  Start(kBorrowed);
  std::uint64_t self = 0;  // the first word of a thread's control block is its own address
  Wear(kBorrowed);
  asm volatile("mov %%fs:0, %0" : "=r"(self));
  Wear(0);
  const bool worn = self == threads_[kBorrowed].fs_base;
  asm volatile("mov %%fs:0, %0" : "=r"(self));
  End(kBorrowed);
  WatchCalls(false);
  body_ = body;
  return worn && self == threads_[0].fs_base;
}

void* RecordedThreads::Main(void* argument) {
  Thread& thread = *static_cast<Thread*>(argument);
  RecordedThreads& owner = *thread.owner;
  thread.fs_base = ReadFsBase();
  WatchThisThread();
  Signal(thread.ready);
  if (owner.AwaitTurn(thread) && owner.body_ != nullptr) owner.body_(owner.context_, thread.number);
  return nullptr;  // the allocator's destructors for this thread follow
}

bool RecordedThreads::AwaitTurn(Thread& thread) {
  Wait(thread.wake, 0);
  thread.wake.store(0, std::memory_order_relaxed);
  return thread.ending.load(std::memory_order_acquire) == 0;
}

void RecordedThreads::Wake(Thread& thread) { Signal(thread.wake); }

void RecordedThreads::Start(std::uint32_t number) {
  WatchCalls(false);
  Thread& thread = threads_[number];
  thread.ready.store(0);
  thread.wake.store(0);
  thread.ending.store(0);
  char* stack = reinterpret_cast<char*>(kStacksAddress + number * kStackBytes);
  Kernel(SYS_madvise, stack + kStackBytes - kStackPresentBytes, kStackPresentBytes, MADV_POPULATE_WRITE);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  if (pthread_attr_setstack(&attributes, stack, kStackBytes) != 0 ||
      pthread_create(&thread.handle, &attributes, Main, &thread) != 0) {
    StopWorker(Phase::kStopped, "cannot start a thread for each recorded one (see ulimit -u)");
  }
  pthread_attr_destroy(&attributes);
  Wait(thread.ready, 0);
  thread.alive = true;
  WatchCalls(true);
}

void RecordedThreads::End(std::uint32_t number) {
  Thread& thread = threads_[number];
  thread.ending.store(1, std::memory_order_release);
  Wake(thread);
  pthread_join(thread.handle, nullptr);
  thread.alive = false;
}

void RecordedThreads::Wear(std::uint32_t number) {
  const std::uint64_t base = threads_[number].fs_base;
  if (fsgsbase_) {
    WriteFsBase(base);
  } else {
    Kernel(SYS_arch_prctl, ARCH_SET_FS, base);
  }
}

bool RecordedThreads::HandOver(std::uint32_t from, std::uint32_t to) {
  Wake(threads_[to]);
  return AwaitTurn(threads_[from]);
}

}  // namespace heaptape::worker
