#include "allocators/parts.h"

#include <filesystem>

namespace heaptape {

std::string PartsFolder() {
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  // HEAPTAPE_PARTS_FROM_BIN is the way from the program's folder to its parts, e.g. "../lib/x86_64-linux-gnu/heaptape".
  return (program.parent_path() / HEAPTAPE_PARTS_FROM_BIN).lexically_normal().string();
}

}  // namespace heaptape
