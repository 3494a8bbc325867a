#include "traces/event.h"

#include <array>

namespace heaptape {

const char* OpName(Op op) {
  static constexpr std::array<const char*, kOpCount> kNames = {
      "malloc", "calloc", "realloc", "reallocarray", "free",         "posix_memalign", "aligned_alloc", "memalign", "valloc",
      "pvalloc", "malloc_trim", "mallopt", "thread_start", "thread_end", "time",          "fork",     "lost"};
  const auto index = static_cast<std::size_t>(op);
  return index < kNames.size() ? kNames[index] : "unknown";
}

}  // namespace heaptape
