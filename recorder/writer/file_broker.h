// A process of its own that makes a recording's files, so that the writer needs no right to make any.
//
// The writer reads memory that the recorded program can write, and follows the program to another user; then it could
// no longer rename its file in a folder of root's. The broker never reads that memory. It accepts five requests with
// numbers in them, and all names come from its own copy of the path that was asked for.

#ifndef HEAPTAPE_RECORDER_WRITER_FILE_BROKER_H_
#define HEAPTAPE_RECORDER_WRITER_FILE_BROKER_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "recorder/writer/recording_files.h"

namespace heaptape {

inline constexpr char kBrokerName[] = "heaptape-files";

// Forks. The parent becomes the broker, calls `confine` with the descriptors that it needs, serves until the last of its
// clients has gone, and ends there; the child returns with the way to it. Errors: of the folder, and of the system.
absl::StatusOr<std::unique_ptr<RecordingFiles>> StartFileBroker(const std::string& path, bool replace,
                                                                const std::function<void(const std::vector<int>& needed)>& confine);

}  // namespace heaptape

#endif  // HEAPTAPE_RECORDER_WRITER_FILE_BROKER_H_
