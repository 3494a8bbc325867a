// Any bytes as the columns of a checkpoint; what decodes must encode and decode to the same again.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "traces/checkpoint.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  heaptape::Checkpoint checkpoint, again;
  if (!heaptape::DecodeCheckpoint({data, size}, checkpoint).ok()) return 0;
  for (std::size_t i = 1; i < checkpoint.objects.size(); ++i)
    if (checkpoint.objects[i].number <= checkpoint.objects[i - 1].number) return 0;  // wrapped: not writable
  std::vector<std::uint8_t> bytes;
  heaptape::EncodeCheckpoint(checkpoint, bytes);
  if (!heaptape::DecodeCheckpoint(bytes, again).ok() || again.objects != checkpoint.objects ||
      again.free_slots != checkpoint.free_slots || again.threads != checkpoint.threads)
    std::abort();
  return 0;
}
