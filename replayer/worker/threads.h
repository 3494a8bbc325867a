// The recorded threads: each is a real thread with its own TLS, so that the allocator under test keeps its
// per-thread state where it would in the recorded program.
//
// Fast engine: the real threads are parked for ever and one thread wears their identity by setting its FS
// base. Lock-step engine: the real threads execute their own events, handing the turn to one another.

#ifndef HEAPTAPE_REPLAYER_WORKER_THREADS_H_
#define HEAPTAPE_REPLAYER_WORKER_THREADS_H_

#include <pthread.h>

#include <atomic>
#include <cstdint>

namespace heaptape::worker {

class RecordedThreads {
 public:
  // What a real thread of the lock-step engine runs: its own events, until it is told to end.
  using Body = void (*)(void* context, std::uint32_t thread);

  // Maps tables and address room for `count` threads. The caller becomes thread 0. False if the memory
  // cannot be had.
  bool Prepare(std::uint32_t count, bool trust_fsgsbase);
  // What threads started from now on run; without one they park.
  void SetBody(Body body, void* context) {
    body_ = body;
    context_ = context;
  }

  // True if one thread can take on another's FS base here: tried with a thread made for it.
  bool CanWearIdentities();
  bool uses_fsgsbase() const { return fsgsbase_; }

  bool alive(std::uint32_t thread) const { return threads_[thread].alive; }
  // Both by thread 0 under its own FS base. End() runs the thread's TLS destructors in itself and waits.
  void Start(std::uint32_t thread);
  void End(std::uint32_t thread);

  // Makes the calling thread use the TLS of `thread` (fast engine).
  void Wear(std::uint32_t thread);

  // Lock-step: gives the turn away and waits for it. False when the caller is to end.
  bool HandOver(std::uint32_t from, std::uint32_t to);

 private:
  struct alignas(64) Thread {
    std::uint64_t fs_base;
    pthread_t handle;
    bool alive;
    std::atomic<std::uint32_t> wake;  // counts up at each wake
    std::atomic<std::uint32_t> ready;
    std::atomic<std::uint32_t> ending;
    RecordedThreads* owner;
    std::uint32_t number;
  };

  static void* Main(void* thread);
  bool AwaitTurn(Thread& thread);
  void Wake(Thread& thread);

  Thread* threads_ = nullptr;
  Body body_ = nullptr;
  void* context_ = nullptr;
  bool fsgsbase_ = false;
};

}  // namespace heaptape::worker

#endif  // HEAPTAPE_REPLAYER_WORKER_THREADS_H_
