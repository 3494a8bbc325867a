// The process's region: made at its first event, handed to forked children, ended with it.

#ifndef HEAPTAPE_RECORDER_PRELOAD_PROCESS_H_
#define HEAPTAPE_RECORDER_PRELOAD_PROCESS_H_

#include "recorder/preload/state.h"

namespace heaptape {

// The region for the first event of a process: of the program itself (which may come long before the constructor) or
// of a forked child, whose process page is empty. Null: nothing is recorded here.
Region* EnterProcess();

// In the constructor: memory for so many forked children at once. Without it none is followed.
void PrepareForChildren(std::uint32_t count);
// Gives the memory for children that is not in use back. No child is followed any more.
void ReleaseSpares();

// In the constructor, when recording goes on: fork handlers and the key that tells of a thread's end.
void InstallHandlers();

// Decided once for the process and its children: nothing is recorded.
void TurnOff();

}  // namespace heaptape

#endif  // HEAPTAPE_RECORDER_PRELOAD_PROCESS_H_
