#include <cstdio>
#include <string>

#include "allocators/parts.h"
#include "replayer/commands/commands.h"

namespace heaptape::commands {

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "heaptape: %s\n", std::string(status.message()).c_str());
  return status.code() == absl::StatusCode::kInvalidArgument ? kExitUsage : kExitFailed;
}

std::string PartPath(const std::string& name) { return PartsFolder() + "/" + name; }

}  // namespace heaptape::commands
