#include "replayer/commands/memory_limit.h"

namespace heaptape::commands {

void AddMemoryLimit(CLI::App& command, std::uint64_t& bytes) {
  command.add_option("--memory-limit", bytes, "Refuse a trace that needs more memory, e.g. 8GiB (default: three quarters of what is available)")
      ->transform(CLI::AsSizeValue(false).description(""))->type_name("SIZE");
}

}  // namespace heaptape::commands
