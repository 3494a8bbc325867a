// How much memory a command may take for what a trace says: a trace comes from anywhere, and a small file can hold a long
// list of live objects.

#ifndef HEAPTAPE_TRACES_MEMORY_LIMIT_H_
#define HEAPTAPE_TRACES_MEMORY_LIMIT_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"

namespace heaptape {

// Gives a file's content, empty where there is none.
using FileText = std::function<std::string(const std::string& path)>;

// Memory, in bytes, that the system could give this process: MemAvailable, or what the limit of one of its control groups
// (version 1 or 2) leaves if that is less.
std::uint64_t AvailableMemory();
std::uint64_t AvailableMemory(const FileText& read);

// Three quarters of it. The default of every --memory-limit.
std::uint64_t DefaultMemoryLimit();

// "guard.tape: needs 12.3 GiB of memory for 300000000 live objects, more than the limit of 4.0 GiB; ...", ResourceExhausted.
absl::Status OverMemoryLimit(const std::string& name, double needed_bytes, const std::string& what, std::uint64_t limit_bytes);

}  // namespace heaptape

#endif  // HEAPTAPE_TRACES_MEMORY_LIMIT_H_
