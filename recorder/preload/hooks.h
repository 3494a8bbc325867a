// The functions that this library exports. What the program calls is defined in hooks.cc.

#ifndef HEAPTAPE_RECORDER_PRELOAD_HOOKS_H_
#define HEAPTAPE_RECORDER_PRELOAD_HOOKS_H_

namespace heaptape {

// The address of the exported malloc.
void* OwnMalloc();

}  // namespace heaptape

#endif  // HEAPTAPE_RECORDER_PRELOAD_HOOKS_H_
