// One heaptape-worker: started, fed with events, watched, and always gone when this object is.
//
// One thread only; it must outlive the object (the kernel kills the worker when the thread that started it
// dies, so that no worker survives its host).

#ifndef HEAPTAPE_REPLAYER_WORKER_PROCESS_H_
#define HEAPTAPE_REPLAYER_WORKER_PROCESS_H_

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "replayer/worker/protocol.h"

namespace heaptape {

struct WorkerCommand {
  std::string worker_path;
  std::string loader_path;          // another glibc's ld.so, or empty
  std::string loader_library_path;
  std::vector<std::string> environment;  // "NAME=value", all of it
  bool huge_pages_allowed = false;
  bool vary_addresses = false;  // leave address randomisation as it is
};

class WorkerProcess {
 public:
  // Called about ten times a second while waiting; true ends the worker.
  using Watch = std::function<bool()>;

  static absl::StatusOr<std::unique_ptr<WorkerProcess>> Start(const worker::Settings& settings,
                                                              const WorkerCommand& command);
  ~WorkerProcess();
  WorkerProcess(const WorkerProcess&) = delete;
  WorkerProcess& operator=(const WorkerProcess&) = delete;

  void set_watch(Watch watch) { watch_ = std::move(watch); }

  // Appends entries to the ring, waiting for room. False once the worker has ended.
  bool Push(std::span<const Event> entries);
  bool Push(const Event& entry) { return Push(std::span(&entry, 1)); }
  // Lets the worker see what was pushed.
  void Publish();
  // Waits until the worker has ended by itself or the watch has had it killed.
  void AwaitEnd();
  void Kill();
  // Waits until the worker has done as many kEntryMap entries; it then stands still until the next entry.
  // False if it ended before.
  bool AwaitMap(std::uint32_t maps);

  bool ended() const { return ended_; }
  // 0: ended by itself; else the signal.
  int end_signal() const { return end_signal_; }
  int exit_status() const { return exit_status_; }
  worker::Phase phase() const { return shared_->phase.load(); }
  std::uint64_t position() const { return shared_->position(); }
  const worker::Findings& findings() const { return shared_->findings; }
  const worker::WorkerSample* samples() const { return samples_; }
  // Of the last heap map.
  std::span<const worker::LiveBlock> map_blocks() const;
  pid_t pid() const { return pid_; }
  // Anonymous memory of the worker as seen from outside, for the memory limit's last resort.
  std::uint64_t ResidentBytes() const;
  // The end of what the allocator printed.
  const std::string& output() const { return output_; }

 private:
  static constexpr std::uint64_t kPublishEntries = 4096;
  static constexpr std::uint64_t kWakeEntries = 32 << 10;  // for a worker that waits; at most half the ring

  WorkerProcess() = default;
  bool AwaitRoom();
  // Notices the worker's end, its output and the watch's wish. False once it has ended.
  bool Look(bool may_reap);
  void DrainOutput();

  pid_t pid_ = -1;
  int output_descriptor_ = -1;
  std::string output_;
  worker::SharedHeader* shared_ = nullptr;
  Event* ring_ = nullptr;
  worker::WorkerSample* samples_ = nullptr;
  std::uint64_t ring_entries_ = 0;
  std::uint64_t head_ = 0;
  std::uint64_t published_ = 0;
  std::uint64_t known_tail_ = 0;
  bool ended_ = false;
  int end_signal_ = 0;
  int exit_status_ = 0;
  Watch watch_;
};

}  // namespace heaptape

#endif  // HEAPTAPE_REPLAYER_WORKER_PROCESS_H_
