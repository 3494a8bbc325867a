#include "recorder/preload/state.h"

namespace heaptape {

ProcessPage process;
Settings settings;
std::atomic<bool> is_off;
std::atomic<bool> record_large;
std::uint32_t own_region;
constinit thread_local ThreadState thread __attribute__((tls_model("initial-exec")));

}  // namespace heaptape
