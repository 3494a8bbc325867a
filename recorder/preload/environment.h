// How the preload is told what to do, and how the program is left with the environment it would have without it.

#ifndef HEAPTAPE_RECORDER_PRELOAD_ENVIRONMENT_H_
#define HEAPTAPE_RECORDER_PRELOAD_ENVIRONMENT_H_

#include "recorder/raw_event.h"

namespace heaptape {

// The value behind `name`, which ends in '='; null where it is missing.
const char* FindVariable(char** environment, const char* name);

// "name=value;..."; what it does not name is left.
void ParseOptions(const char* text, RecorderOptions* options);

// What comes behind the last slash.
const char* BaseName(const char* path);

// A drop-in preloads every command of a unit; only the one meant is recorded.
bool IsMeant(char** environment, int argc, char** argv);

// The pipe of `heaptape record`, named as "descriptor:device:inode"; below 0 where that descriptor is something else.
int FindReport(const char* text);

// Takes this library out of LD_PRELOAD and its variables out of the program's environment (`environ`). The kernel's own
// array of them keeps its length, since some programs find the auxiliary vector behind it (Go); there the values are
// emptied.
void CleanEnvironment(char** environment, const char* own_path);

// With `children`: keeps what an executed child needs. It learns that it is not the first, and nothing of the report.
void KeepForChildren(char** environment);

}  // namespace heaptape

#endif  // HEAPTAPE_RECORDER_PRELOAD_ENVIRONMENT_H_
