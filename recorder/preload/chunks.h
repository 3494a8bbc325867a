// Chunks of the pool: taking one, waiting for one, owning one.

#ifndef HEAPTAPE_RECORDER_PRELOAD_CHUNKS_H_
#define HEAPTAPE_RECORDER_PRELOAD_CHUNKS_H_

#include "recorder/preload/state.h"

namespace heaptape {

// A free chunk. Waits for the writer where there is none, at most as long as the settings say. kNoChunk: recording has
// ended.
std::uint32_t TakeChunk(Region* region);

// The thread's serial in the region; gives it one at its first event there.
std::uint32_t ThreadSerial(Region* region);

// Gives the thread a chunk with room for `room` events. False: it cannot own one now.
bool Attach(Region* region, std::uint32_t generation, std::uint32_t room);

// The thread's chunk goes to the writer.
void CloseChunk(Region* region);

// Waits overlap; counts only the part of [start, end) that is not already counted.
void CountHeld(Region* region, std::uint64_t start, std::uint64_t end);

// The key whose destructor tells that a thread ends. False: there is none.
bool MakeExitKey(void (*at_exit)(void*));
// Asks for another call at the end of this thread.
void ComeBackAtExit();

}  // namespace heaptape

#endif  // HEAPTAPE_RECORDER_PRELOAD_CHUNKS_H_
