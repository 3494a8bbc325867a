// Keeps what replays found, so that nothing is replayed twice and an interrupted fleet goes on where it
// stopped. A replay is a pure function of its key: trace, allocator (the bytes of its library and of the
// C library under it), tunables, settings, seed, engine (the bytes of this program and of the worker) and kernel.

#ifndef HEAPTAPE_REPLAYER_RESULT_CACHE_H_
#define HEAPTAPE_REPLAYER_RESULT_CACHE_H_

#include <optional>
#include <string>

#include "allocators/catalog.h"
#include "replayer/replay.h"
#include "replayer/results.h"

namespace heaptape {

// 32 hex digits. Empty where the result must not be kept: with a real clock no two runs are the same.
std::string ResultKey(const std::string& trace_digest, const ResolvedAllocator& allocator, const ReplayOptions& options);

// One file per result in a folder. Thread-safe, and safe with other processes: files appear whole.
class ResultCache {
 public:
  // The folder is made when the first result is stored. Empty: keeps nothing.
  explicit ResultCache(std::string folder) : folder_(std::move(folder)) {}

  // nullopt where there is none or it cannot be read.
  std::optional<RunResult> Load(const std::string& key) const;
  // A run that ended early is not kept: it may do better the next time. Failing to write is no error.
  void Store(const std::string& key, const RunResult& run) const;

 private:
  std::string folder_;
};

}  // namespace heaptape

#endif  // HEAPTAPE_REPLAYER_RESULT_CACHE_H_
