// Numbers as people read them. Bytes in powers of 1024; every function is pure and locale-free.

#ifndef HEAPTAPE_REPLAYER_EXPORT_FORMAT_H_
#define HEAPTAPE_REPLAYER_EXPORT_FORMAT_H_

#include <cstdint>
#include <string>

#include "replayer/results.h"

namespace heaptape {

std::string FormatBytes(double bytes);                // "405.1 MiB", "-12 B"
std::string FormatGrowth(double bytes_per_day);       // "+1.02 GiB/day", "0/day"
// The same slope where it was seen for too short a time to speak of days: "+8.20 MiB in 76 s", "0".
std::string FormatGrowthSeen(double bytes_per_day, std::uint64_t window_ns);
std::string FormatShare(double share);                // "+12.3 %" of 0.123
std::string FormatRatio(double ratio);                // "1.27x"
std::string FormatCount(std::uint64_t count);         // "1.2 M", "845"
// "17.0 k frees of blocks that were not seen being allocated", and those not seen being freed, where there are any.
std::string FormatUnmatchedFrees(const UnmatchedFrees& frees);
// The same as a sentence on what follows where they hide a part of the heap, with what to look for.
std::string MissingHeapSentence(const UnmatchedFrees& frees);
std::string FormatDuration(std::uint64_t ns);         // "20 min 51 s", "3.2 s", "15 ms"

}  // namespace heaptape

#endif  // HEAPTAPE_REPLAYER_EXPORT_FORMAT_H_
