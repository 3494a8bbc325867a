// Builds commits beside the replays: what is likely to be asked for next is built while another is replayed.

#ifndef HEAPTAPE_REPLAYER_BISECT_BUILD_AHEAD_H_
#define HEAPTAPE_REPLAYER_BISECT_BUILD_AHEAD_H_

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "allocators/catalog.h"

namespace heaptape {

// One commit's library, or why there is none.
struct Built {
  ResolvedAllocator allocator;
  std::string failure;         // the commit's own fault, with the last lines of its build; empty: built
  bool built_before = false;   // it came out of the cache
};

// Builds one commit, or takes it from the cache. Gives up with Cancelled soon after the flag is set. An error
// status is nobody's commit's fault.
using BuildFunction = std::function<absl::StatusOr<Built>(const std::string& hash, const std::atomic<bool>* cancelled)>;

// One build at a time, in a thread of its own. One thread calls it.
class BuildAhead {
 public:
  // `cancelled` may be null and outlives this.
  BuildAhead(BuildFunction build, const std::atomic<bool>* cancelled);
  // Cancels the build under way and waits for its end.
  ~BuildAhead();
  BuildAhead(const BuildAhead&) = delete;

  // Builds these when nothing else is to do, in this order, in place of those named before. One that is
  // under way is finished.
  void Expect(const std::vector<std::string>& hashes);
  // Waits for this one. A build under way of another gives way to it.
  absl::StatusOr<Built> Get(const std::string& hash);

 private:
  void Run();

  const BuildFunction build_;
  const std::atomic<bool>* const cancelled_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::string> expected_;
  std::string urgent_;                  // what Get() waits for
  std::string under_way_;
  std::atomic<bool> give_up_ = false;   // for the build under way
  bool stopping_ = false;
  std::map<std::string, absl::StatusOr<Built>> done_;
  std::thread thread_;                  // last: it uses the rest
};

}  // namespace heaptape

#endif  // HEAPTAPE_REPLAYER_BISECT_BUILD_AHEAD_H_
