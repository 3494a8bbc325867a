#include "recorder/writer/writer.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace heaptape {
namespace {

constexpr std::uint64_t kMillisecond = 1'000'000;
constexpr std::uint64_t kSecond = 1'000'000'000;
// After this long without the event whose number is next, while later ones are there, it will not come: its thread was
// killed or jumped out of the few instructions between taking the number and publishing.
constexpr std::uint64_t kGapPatience = 2 * kSecond;
// A program becomes a daemon in its first minute or never.
constexpr std::uint64_t kDaemonWindow = 60 * kSecond;
constexpr std::uint32_t kProvisionalForksMax = 32;
constexpr std::uint64_t kFlushInterval = 5 * kSecond;
// A program that is killed gives no notice: its large blocks were last probed so long ago at most.
constexpr std::uint64_t kProbeInterval = 5 * kSecond;
constexpr std::uint64_t kUserInterval = 50 * kMillisecond;
// What is left in the pool of a program that has ended is read in milliseconds; one that only seems to have ended must
// not keep the writer busy.
constexpr std::uint64_t kReadToTheEndLimit = 30 * kSecond;
constexpr std::uint32_t kCopiesMax = 99;  // files that one process may begin, by executing again and again

std::uint64_t Now(clockid_t clock = CLOCK_MONOTONIC) {
  timespec now;
  clock_gettime(clock, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * kSecond + static_cast<std::uint64_t>(now.tv_nsec);
}

// Of this process, with what it shares with the program.
std::uint64_t PeakRss() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;
}

void SleepFor(std::uint64_t ns) {
  const timespec duration = {static_cast<time_t>(ns / kSecond), static_cast<long>(ns % kSecond)};
  nanosleep(&duration, nullptr);
}

// Lets the program see that this process lives: the kernel marks the word when it dies, however it dies. The list that
// the kernel walks then lies in this process's own memory; the C library's, which this process has no use for, would
// have its links in the region.
void ShowLife(Region* region) {
  struct List {
    robust_list_head head;
    robust_list entry;
  };
  static List list;
  list.head.list.next = &list.entry;
  list.entry.next = &list.head.list;
  list.head.list_op_pending = nullptr;
  list.head.futex_offset = reinterpret_cast<char*>(&region->writer_alive) - reinterpret_cast<char*>(&list.entry);
  region->writer_alive.store(static_cast<std::uint32_t>(syscall(SYS_gettid)), std::memory_order_release);
  syscall(SYS_set_robust_list, &list.head, sizeof(list.head));
}

const char* EndReasonText(EndReason reason) {
  switch (reason) {
    case EndReason::kNone: return "";
    case EndReason::kWaitedTooLong: return "the program had waited for the writer as long as it may (--max-wait)";
    case EndReason::kWaitedTooMuch: return "the program's waits for the writer had reached their bound (--max-total-wait)";
    case EndReason::kWriterDied: return "the writer process was killed";
    case EndReason::kAddressTooLong: return "the allocator returned an address above 47 bits";
    case EndReason::kWriterStopped: return "the writer had to stop";
  }
  return "the program's memory was overwritten";
}

}  // namespace

Writer::Writer(const Session& session, std::uint32_t index, const Target& target, std::unique_ptr<Recording> recording, int report)
    : session_(session), index_(index), region_(session.lineage.At(index)), slot_(session.lineage.Slot(index)), target_(target),
      recording_(std::move(recording)), memory_(target.files), modules_(target.files.maps),
      pool_(region_, &memory_, &modules_, recording_.get()), report_(report), control_(MakeControlBlock()), start_ns_(Now()),
      credentials_(ParseCredentials(memory_.Status())) {
  ShowLife(region_);
  recording_->set_modules(&modules_.seen());
  if (session_.options.big_blocks) recording_->set_big_filter(region_->big_filter);
  recording_->set_fork_hook([this](std::uint32_t child) { FollowFork(child); });
  AllowForks(0);
  if (!control_) return;
  control_->target_pid.store(target_.pid);
  control_->writer_pid.store(getpid());
  std::snprintf(control_->output, sizeof(control_->output), "%s", recording_->path().c_str());
}

void Writer::Run() {
  std::uint64_t idle_polls = 0;
  std::uint64_t next_check = 0;
  std::uint64_t last_mark = 0;
  std::uint64_t last_open = 0;
  std::uint64_t probes = 0;
  std::uint64_t last_probe_ns = 0;
  const std::uint64_t mark_interval = std::clamp<std::uint64_t>(session_.options.time_resolution_ns, kMillisecond, kSecond);
  for (;;) {
    const std::uint32_t number = region_->number.load(std::memory_order_acquire);
    const std::uint64_t now = Now() - start_ns_;
    if (now - last_mark >= mark_interval) {
      recording_->Mark(number, Clock());
      last_mark = now;
    }
    const bool asked = region_->wish.load(std::memory_order_acquire) > region_->wish_done.load();
    const bool open = asked || now - last_open >= kMillisecond / 2;
    if (open) last_open = now;
    const std::uint64_t events = pool_.Poll(open);
    recording_->Drain();
    if (asked && GrantWish()) return;
    SkipStaleGap(now);
    if (ReachedEnd()) return;  // before the program's end, which would hide that recording had ended before
    if (now >= next_check) {
      next_check = now + 10 * kMillisecond;
      if (!Housekeep(now)) return;
    }
    // A full pool makes the program wait, so the next poll comes at once while there is much to read; not at chunks that
    // are being filled, whose memory would go to and fro between the processors.
    idle_polls = events ? 0 : idle_polls + 1;
    if (pool_.probes_asked() != probes) {
      probes = pool_.probes_asked();
      last_probe_ns = now;
    }
    if (events >= 4 * kChunkEvents) continue;
    if (last_probe_ns != 0 && now - last_probe_ns < 3 * kMillisecond) {
      AwaitProbes();
    } else {
      SleepFor(idle_polls < 20 ? kMillisecond : 4 * kMillisecond);
    }
  }
}

// A thread that has asked for a probe soon asks for another, and waits for it: for a millisecond little else is done than
// serving them.
void Writer::AwaitProbes() {
  for (int naps = 0; naps < 16; ++naps) {
    SleepFor(50'000);
    pool_.ServeProbes();
  }
}

// The recording's time: since its start, and without what the program was held up for the writer. Allocators give memory
// back by time, and the program that is not recorded does not wait. Never goes back.
std::uint64_t Writer::Clock() {
  const std::uint64_t passed = Now() - start_ns_;
  const std::uint64_t held = region_->held_ns.load(std::memory_order_relaxed);
  if (passed > held) clock_ns_ = std::max(clock_ns_, passed - held);
  return clock_ns_;
}

// --- forks -------------------------------------------------------------------------------------------------

// May the program's next fork have a region? With `children` always. Otherwise only while it may be becoming a daemon,
// because following a fork costs this process one of its own.
void Writer::AllowForks(std::uint64_t now) {
  const bool allowed = session_.options.children || (now < kDaemonWindow && provisional_forks_ < kProvisionalForksMax);
  region_->fork_allowed.store(allowed ? 1 : 0, std::memory_order_release);
}

// The program forked, and its child has a region. A fork of this process goes on with the child: with all tables as they
// are at this very event.
void Writer::FollowFork(std::uint32_t index) {
  if (index == 0 || index >= session_.lineage.count() || index == index_) return;
  if (!session_.options.children && provisional_forks_ >= kProvisionalForksMax) return;
  if (read_deadline_ns_ != 0 && ++late_forks_ > kRegionsMax) return;
  // Never two for one region, and none for another process's child, whatever the program writes there.
  std::atomic<std::int32_t>& follower = (*session_.followers)[index];
  std::int32_t none = follower.load();
  if (none != 0) {
    const int alive = static_cast<int>(syscall(SYS_pidfd_open, none, 0));
    if (alive >= 0) {
      close(alive);
      return;
    }
  }
  if (!follower.compare_exchange_strong(none, getpid())) return;
  ++provisional_forks_;
  absl::StatusOr<std::unique_ptr<RecordingFiles>> files = recording_->files().ForChild();
  const pid_t pid = files.ok() ? fork() : -1;
  if (pid == 0) RunChild(index, *std::move(files));
  // A short one may have given its region back already.
  std::int32_t own = getpid();
  follower.compare_exchange_strong(own, std::max(pid, 0));
  if (pid < 0) session_.lineage.GiveBack(index);
}

// Before the region can be claimed again, its place among the followers is free.
void Writer::GiveRegionBack() {
  (*session_.followers)[index_].store(0);
  session_.lineage.GiveBack(index_);
}

void Writer::RunChild(std::uint32_t index, std::unique_ptr<RecordingFiles> files) {
  if (report_ >= 0) close(report_);
  (*session_.followers)[index].store(getpid());
  const Lineage& lineage = session_.lineage;
  ForkSlot& slot = lineage.Slot(index);
  Region* const region = lineage.At(index);
  ShowLife(region);
  pid_t claimed = 0;
  for (int i = 0; i < 1000 && (claimed = slot.child_pid.load(std::memory_order_acquire)) == 0; ++i) SleepFor(kMillisecond);
  std::optional<Target> target = OpenChild(claimed, target_.pid, session_.start_ticks);
  const bool dropped = slot.role.load() == ProcessRole::kDropped;
  // It may have ended before this process was running: its events are there all the same, under the name it had.
  if (!target && claimed > 0 && !dropped) target = Target{claimed, -1, {}};
  if (!target || dropped) {
    region->generation.store(0);
    (*session_.followers)[index].store(0);
    lineage.GiveBack(index);
    _exit(0);
  }
  std::unique_ptr<Recording> recording = std::move(recording_);
  absl::Status opened;
  FileName name = {.process = target->pid};
  const std::shared_ptr<RecordingFiles> shared = std::move(files);
  do {
    opened = recording->ContinueAs(name, shared);
    name.copy = std::max(name.copy + 1, 2u);
  } while (absl::IsAlreadyExists(opened) && name.copy <= kCopiesMax);
  Writer child(session_, index, *target, std::move(recording), -1);
  region->writer_state.store(WriterState::kRunning, std::memory_order_release);
  if (!opened.ok()) {
    child.Stop(std::string(opened.message()));
  } else {
    child.Run();
  }
  _exit(0);
}

// --- what is done now and then -----------------------------------------------------------------------------

bool Writer::TargetLives() {
  if (!IsAlive(target_.pidfd)) return false;
  const ProcessMemory::State state = memory_.CheckState();
  executed_ = state == ProcessMemory::State::kExecuted;
  return state == ProcessMemory::State::kThere;
}

// Whatever rights the program gives up, this process gives up as well.
void Writer::FollowUser(std::uint64_t now) {
  if (now < next_user_) return;
  next_user_ = now + kUserInterval;
  const std::string_view status = memory_.Status();
  if (status.empty()) return;
  if (ParseSeccomp(status) != 0) region_->filtered.store(1, std::memory_order_relaxed);
  const std::optional<Credentials> credentials = ParseCredentials(status);
  if (!credentials || credentials == credentials_) return;
  credentials_ = credentials;
  Become(*credentials);
}

void Writer::SkipStaleGap(std::uint64_t now) {
  const EventOrder& order = recording_->order();
  if (order.waiting() == 0 || order.next_number() != gap_number_) {
    gap_number_ = order.next_number();
    gap_since_ = now;
    gap_polls_ = 0;
    return;
  }
  // Counted in polls as well, so that a machine that stood still for a while is not taken for a lost thread.
  if (now - gap_since_ > kGapPatience && ++gap_polls_ > 200) {
    recording_->SkipGap();
    recording_->Drain();
  }
}

bool Writer::ReachedEnd() {
  if (!recording_->status().ok()) {
    Stop(std::string(recording_->status().message()));
    return true;
  }
  if (const EndReason reason = region_->end_reason.load(); reason != EndReason::kNone) {
    Stop(EndReasonText(reason));
    return true;
  }
  return false;
}

// About every 10 ms. False: the recording has ended.
bool Writer::Housekeep(std::uint64_t now) {
  if (!TargetLives()) {
    TargetEnded();
    return false;
  }
  if (!session_.lineage.IsStillWanted(index_, now < kDaemonWindow)) {
    region_->generation.store(0, std::memory_order_release);
    recording_->Discard();
    return false;
  }
  FollowUser(now);
  ObeyCommand();
  AllowForks(now);
  if (now - last_flush_ >= kFlushInterval) {
    last_flush_ = now;
    recording_->FlushAtMark();
  }
  return now < next_second_ || HousekeepEachSecond(now);
}

bool Writer::HousekeepEachSecond(std::uint64_t now) {
  next_second_ = now + kSecond;
  pool_.ForgetProbes();
  recording_->RotateIfDue(Clock());
  SampleMemory(now);
  if (now >= next_probe_) {
    const std::uint64_t before = Now();
    ProbeLiveBlocks();
    next_probe_ = now + std::max(kProbeInterval, 100 * (Now() - before));
  }
  disk_free_ = recording_->files().DiskFree();
  if (disk_free_ < session_.options.min_free_bytes) {
    Stop(absl::StrFormat("the disk of %s has less than %d MiB free (--min-free)", recording_->path(),
                         session_.options.min_free_bytes >> 20));
    return false;
  }
  if (now >= next_reclaim_) {
    next_reclaim_ = now + 5 * kSecond;
    if (region_->owned_count.load() > kOwnedChunksMax / 4) {
      for (const std::uint32_t serial : pool_.Reclaim([this](std::int32_t tid) { return IsThread(tid); })) {
        recording_->ThreadGone(serial);
      }
    }
  }
  PublishStatus(now);
  return true;
}

// In doubt it lives.
bool Writer::IsThread(std::int32_t tid) const {
  if (target_.files.task < 0) return syscall(SYS_tgkill, target_.pid, tid, 0) == 0 || errno != ESRCH;
  return faccessat(target_.files.task, absl::StrCat(tid).c_str(), F_OK, 0) == 0 || errno != ENOENT;
}

void Writer::ProbeLiveBlocks() {
  if (!session_.options.big_blocks || !memory_.can_see_pages()) return;
  recording_->LookAtLiveBlocks([this](std::uint64_t address, std::uint64_t bytes) { return memory_.PresentPages(address, bytes); });
}

void Writer::SampleMemory(std::uint64_t now) {
  // Reading the mappings holds a lock of the program's: no more than a hundredth of the time.
  const bool with_mappings = now >= next_mappings_;
  const std::uint64_t before = Now();
  std::optional<ResidentSample> sample = memory_.Sample(recording_->pages(), with_mappings);
  if (with_mappings) next_mappings_ = now + std::max<std::uint64_t>(kSecond, 100 * (Now() - before)) - kMillisecond;
  if (!sample) return;
  sample->time_ns = Clock();
  recording_->Resident(*sample);
}

void Writer::ObeyCommand() {
  if (!control_) return;
  const Command command = control_->command.exchange(Command::kNone);
  if (command == Command::kNone) return;
  if (command == Command::kStop) region_->generation.store(0, std::memory_order_release);
  if (command == Command::kStart && region_->generation.load() == 0) {
    if (recording_->event_count() > 0) recording_->Resumed();
    region_->generation.store(++generation_, std::memory_order_release);
  }
  if (command == Command::kFlush) {
    ProbeLiveBlocks();
    (void)recording_->Flush();
  }
  PublishStatus(Now() - start_ns_);
  control_->commands_done.fetch_add(1);
}

void Writer::PublishStatus(std::uint64_t now) {
  if (!control_) return;
  const std::uint64_t events = recording_->event_count();
  if (now > published_ns_ + kSecond / 2) {
    control_->events_per_second.store((events - published_events_) * kSecond / (now - published_ns_));
    published_events_ = events;
    published_ns_ = now;
  }
  control_->recording.store(region_->generation.load() != 0);
  control_->end_reason.store(static_cast<std::uint32_t>(region_->end_reason.load()));
  control_->events.store(events);
  control_->live_objects.store(recording_->live_objects());
  control_->live_bytes.store(recording_->live_bytes());
  control_->bytes_written.store(recording_->bytes_written());
  control_->segments.store(recording_->segments());
  control_->waits.store(region_->waits.load());
  control_->wait_ns.store(region_->wait_ns.load());
  control_->big_waits.store(region_->big_waits.load());
  control_->big_wait_ns.store(region_->big_wait_ns.load());
  control_->lost.store(recording_->counts().lost);
  control_->disk_free_bytes.store(disk_free_);
  control_->running_ns.store(now);
  control_->writer_cpu_ns.store(Now(CLOCK_PROCESS_CPUTIME_ID));
  control_->writer_peak_rss_bytes.store(PeakRss());
}

// --- the end -----------------------------------------------------------------------------------------------

bool Writer::GrantWish() {
  ProbeLiveBlocks();
  SampleMemory(Now() - start_ns_);
  const bool finish = region_->wish.load(std::memory_order_acquire) == LastWish::kFinish;
  if (finish) {
    region_->generation.store(0, std::memory_order_release);
    Finish();
  }
  region_->wish_done.store(finish ? LastWish::kFinish : LastWish::kProbe, std::memory_order_release);
  return finish;
}

// Nobody publishes any more: a thread in the middle of an event will not end it.
void Writer::ReadToTheEnd() {
  if (read_deadline_ns_ == 0) read_deadline_ns_ = Now() + kReadToTheEndLimit;
  do {
    while (pool_.Poll(true) > 0 && Now() < read_deadline_ns_) recording_->Drain();
    recording_->Drain();
    recording_->SkipGap();
    recording_->Drain();
  } while (recording_->order().waiting() > 0 && recording_->status().ok() && Now() < read_deadline_ns_);
}

void Writer::TargetEnded() {
  if (recording_->status().ok()) ReadToTheEnd();  // the last event may be a fork, to be followed
  const std::optional<pid_t> daemon = session_.lineage.HandOver(index_, session_.session);
  daemon_ = daemon.value_or(0);
  if (!daemon) session_.lineage.DropChildren(index_);
  const ProcessRole role = slot_.role.load();
  if (daemon || role == ProcessRole::kProvisional || role == ProcessRole::kDropped) {
    if (daemon) Report(absl::OkStatus());
    recording_->Discard();
  } else {
    Finish();
  }
  if (index_ != 0) GiveRegionBack();
}

// Ends the recording while the program lives: it runs on unrecorded.
void Writer::Stop(const std::string& why) {
  EndReason none = EndReason::kNone;
  region_->end_reason.compare_exchange_strong(none, EndReason::kWriterStopped);
  region_->generation.store(0, std::memory_order_release);
  ended_early_ = why;
  Finish();
}

void Writer::Finish() {
  if (recording_->status().ok()) {
    ReadToTheEnd();
    recording_->Mark(static_cast<std::uint32_t>(recording_->order().next_number()), Clock());
    recording_->Drain();
  }
  if (index_ != 0 && slot_.role.load() == ProcessRole::kMain) recording_->set_final_name(session_.main_name);
  const absl::Status finished = recording_->Finish();
  Report(finished);
}

void Writer::Report(const absl::Status& finished) {
  if (report_ < 0) return;
  const RecordingCounts& counts = recording_->counts();
  std::string text = absl::StrFormat(
      "events=%d\nlost=%d\nunknown_frees=%d\nmissed_frees=%d\nmalformed=%d\nwaits=%d\nwait_ns=%d\nbig_waits=%d\nbig_wait_ns=%d\n"
      "daemon=%d\nbig_skipped=%d\nbytes=%d\nsegments=%d\nlive_objects=%d\nchildren_left_out=%d\nwriter_cpu_ns=%d\n"
      "writer_peak_rss_bytes=%d\nexecuted=%d\n",
      recording_->event_count(), counts.lost, counts.unknown_frees, counts.missed_frees, pool_.malformed(), region_->waits.load(),
      region_->wait_ns.load(), region_->big_waits.load(), region_->big_wait_ns.load(), daemon_, region_->big_skipped.load(),
      recording_->bytes_written(), recording_->segments(), recording_->live_objects(), session_.lineage.children_left_out(),
      Now(CLOCK_PROCESS_CPUTIME_ID), PeakRss(), executed_ ? 1 : 0);
  if (!ended_early_.empty()) absl::StrAppend(&text, "ended_early=", ended_early_, "\n");
  if (!finished.ok()) absl::StrAppend(&text, "error=", std::string(finished.message()), "\n");
  (void)!write(report_, text.data(), text.size());
}

}  // namespace heaptape
