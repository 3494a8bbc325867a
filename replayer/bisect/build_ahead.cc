#include "replayer/bisect/build_ahead.h"

#include <chrono>
#include <utility>

namespace heaptape {

BuildAhead::BuildAhead(BuildFunction build, const std::atomic<bool>* cancelled)
    : build_(std::move(build)), cancelled_(cancelled), thread_([this] { Run(); }) {}

BuildAhead::~BuildAhead() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    give_up_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void BuildAhead::Expect(const std::vector<std::string>& hashes) {
  {
    const std::lock_guard lock(mutex_);
    expected_.assign(hashes.begin(), hashes.end());
  }
  changed_.notify_all();
}

absl::StatusOr<Built> BuildAhead::Get(const std::string& hash) {
  std::unique_lock lock(mutex_);
  urgent_ = hash;
  if (!under_way_.empty() && under_way_ != hash) give_up_ = true;
  changed_.notify_all();
  while (!done_.count(hash)) {
    // A signal handler can set the flag but not notify.
    changed_.wait_for(lock, std::chrono::milliseconds(50));
    if (cancelled_ != nullptr && *cancelled_) {
      give_up_ = true;
      urgent_.clear();
      return absl::CancelledError("interrupted");
    }
  }
  urgent_.clear();
  return done_.at(hash);
}

void BuildAhead::Run() {
  std::unique_lock lock(mutex_);
  while (true) {
    while (!expected_.empty() && done_.count(expected_.front())) expected_.pop_front();
    const bool wanted = !urgent_.empty() && !done_.count(urgent_);
    if (stopping_) return;
    if (!wanted && expected_.empty()) {
      changed_.wait(lock);
      continue;
    }
    under_way_ = wanted ? urgent_ : expected_.front();
    give_up_ = false;
    const std::string hash = under_way_;
    lock.unlock();
    absl::StatusOr<Built> built = build_(hash, &give_up_);
    lock.lock();
    under_way_.clear();
    if (built.ok() || built.status().code() != absl::StatusCode::kCancelled) {
      done_.insert_or_assign(hash, std::move(built));
    } else if (!expected_.empty() && expected_.front() == hash) {
      // It gave way; it may be asked for later.
      expected_.pop_front();
    }
    changed_.notify_all();
  }
}

}  // namespace heaptape
