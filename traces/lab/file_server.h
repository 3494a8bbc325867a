// The world behind the exits: answers "GET /N" with N bytes.

#ifndef HEAPTAPE_TRACES_LAB_FILE_SERVER_H_
#define HEAPTAPE_TRACES_LAB_FILE_SERVER_H_

#include <memory>

#include "absl/status/statusor.h"
#include "traces/lab/http.h"

namespace heaptape::lab {

// Serves from a thread of its own until destroyed.
class FileServer {
 public:
  static absl::StatusOr<std::unique_ptr<FileServer>> Start(const Endpoint& endpoint);
  virtual ~FileServer() = default;
};

}  // namespace heaptape::lab

#endif  // HEAPTAPE_TRACES_LAB_FILE_SERVER_H_
