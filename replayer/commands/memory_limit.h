// --memory-limit of the commands that read traces, and what each keeps of every live object beside the reader's own 8 bytes.

#ifndef HEAPTAPE_REPLAYER_COMMANDS_MEMORY_LIMIT_H_
#define HEAPTAPE_REPLAYER_COMMANDS_MEMORY_LIMIT_H_

#include <cstdint>

#include "CLI/CLI.hpp"
#include "traces/trace_reader.h"

namespace heaptape::commands {

// Sets `bytes`, which 0 leaves at DefaultMemoryLimit().
void AddMemoryLimit(CLI::App& command, std::uint64_t& bytes);

inline ReadLimits LimitTo(std::uint64_t memory_limit_bytes, std::uint64_t bytes_per_live_object = 0) {
  return {.memory_limit_bytes = memory_limit_bytes, .bytes_per_live_object = bytes_per_live_object};
}

}  // namespace heaptape::commands

#endif  // HEAPTAPE_REPLAYER_COMMANDS_MEMORY_LIMIT_H_
