// What a trace says of the process and the machine it was recorded on, gathered from outside the process.

#ifndef HEAPTAPE_RECORDER_PROCESS_INFO_H_
#define HEAPTAPE_RECORDER_PROCESS_INFO_H_

#include <string>

#include "recorder/raw_event.h"
#include "traces/trace_info.h"

namespace heaptape {

// Base name of the executable of this process, of which the writer is a fork; "the program" where it cannot be read.
std::string ProgramName();

// Describes the program that this process is a fork of. `allocator_path` is the library whose malloc the process runs on. What the privacy level forbids is left out.
TraceInfo DescribeProcess(const std::string& allocator_path, const RecorderOptions& options);

// Hexadecimal, from the note of a program's or library's file; empty where it has none.
std::string BuildId(const std::string& path);

// "libmimalloc.so.2.0" -> "mimalloc"; "libc.so.6" -> "glibc".
std::string AllocatorName(const std::string& path);

}  // namespace heaptape

#endif  // HEAPTAPE_RECORDER_PROCESS_INFO_H_
