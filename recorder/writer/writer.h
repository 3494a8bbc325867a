// Records one process until it ends, has executed another program, or recording has to end. It polls: the program never
// has to make a system call to be heard. However it ends, what was read until then is in the file in good order.

#ifndef HEAPTAPE_RECORDER_WRITER_WRITER_H_
#define HEAPTAPE_RECORDER_WRITER_WRITER_H_

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "recorder/control.h"
#include "recorder/modules.h"
#include "recorder/process_memory.h"
#include "recorder/raw_event.h"
#include "recorder/recording.h"
#include "recorder/writer/confinement.h"
#include "recorder/writer/lineage.h"
#include "recorder/writer/pool.h"

namespace heaptape {

// The same for all processes of one recording. In the writer's own memory.
struct Session {
  RecorderOptions options;
  Lineage lineage;
  FileName main_name;  // of the program's file, and of the daemon's it becomes
  pid_t session;  // of the program when it was started; a daemon leaves it
  std::uint64_t start_ticks;  // of the first writer
  Followers* followers;
};

class Writer {
 public:
  // `index` is the process's region; `report` the pipe of `heaptape record`, below 0 without one.
  Writer(const Session& session, std::uint32_t index, const Target& target, std::unique_ptr<Recording> recording, int report);

  // Returns when the recording has ended.
  void Run();

 private:
  void AwaitProbes();
  std::uint64_t Clock();
  void AllowForks(std::uint64_t now);
  void FollowFork(std::uint32_t index);
  [[noreturn]] void RunChild(std::uint32_t index, std::unique_ptr<RecordingFiles> files);
  void GiveRegionBack();
  bool TargetLives();
  void FollowUser(std::uint64_t now);
  void SkipStaleGap(std::uint64_t now);
  bool Housekeep(std::uint64_t now);
  bool HousekeepEachSecond(std::uint64_t now);
  void ProbeLiveBlocks();
  void SampleMemory(std::uint64_t now);
  void ObeyCommand();
  void PublishStatus(std::uint64_t now);
  // True: nothing is left to do.
  bool GrantWish();
  bool ReachedEnd();
  void ReadToTheEnd();
  void TargetEnded();
  void Stop(const std::string& why);
  void Finish();
  void Report(const absl::Status& finished);
  bool IsThread(std::int32_t tid) const;

  const Session session_;
  const std::uint32_t index_;
  Region* const region_;
  ForkSlot& slot_;
  Target target_;
  std::unique_ptr<Recording> recording_;
  ProcessMemory memory_;
  Modules modules_;
  Pool pool_;
  const int report_;
  ControlBlock* control_;
  std::uint32_t generation_ = 1;
  const std::uint64_t start_ns_;
  std::uint64_t clock_ns_ = 0;
  std::optional<Credentials> credentials_;  // of the program when last seen
  std::uint32_t provisional_forks_ = 0;
  std::uint32_t late_forks_ = 0;            // seen when the program had ended
  std::uint64_t read_deadline_ns_ = 0;      // of reading what the program left; 0: it lives
  pid_t daemon_ = 0;                        // the program went on as that process
  std::uint64_t gap_number_ = 0;
  std::uint64_t gap_since_ = 0;
  std::uint64_t gap_polls_ = 0;
  std::uint64_t last_flush_ = 0;
  std::uint64_t next_second_ = 0;
  std::uint64_t next_user_ = 0;
  std::uint64_t next_mappings_ = 0;
  std::uint64_t next_probe_ = 0;
  std::uint64_t next_reclaim_ = 0;
  std::uint64_t published_ns_ = 0;
  std::uint64_t published_events_ = 0;
  std::uint64_t disk_free_ = 0;
  bool executed_ = false;
  std::string ended_early_;
};

}  // namespace heaptape

#endif  // HEAPTAPE_RECORDER_WRITER_WRITER_H_
