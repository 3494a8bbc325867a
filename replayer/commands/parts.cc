#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <string>

#include "replayer/commands/commands.h"

namespace heaptape::commands {

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "heaptape: %s\n", std::string(status.message()).c_str());
  return status.code() == absl::StatusCode::kInvalidArgument ? kExitUsage : kExitFailed;
}

std::string PartPath(const std::string& name) {
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  // HEAPTAPE_PARTS_FROM_BIN is the way from the program's folder to its parts, e.g. "../lib/x86_64-linux-gnu/heaptape".
  return (program.parent_path() / HEAPTAPE_PARTS_FROM_BIN / name).lexically_normal().string();
}

}  // namespace heaptape::commands
