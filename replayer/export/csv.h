// The series of every run as CSV (RFC 4180), one row per sample, for spreadsheets and plotting scripts.

#ifndef HEAPTAPE_REPLAYER_EXPORT_CSV_H_
#define HEAPTAPE_REPLAYER_EXPORT_CSV_H_

#include <string>
#include <vector>

#include "replayer/results.h"

namespace heaptape {

// The recorded process itself, where it is known, is the allocator "recorded process" without live bytes.
std::string ToCsv(const std::vector<ReplayReport>& reports);

}  // namespace heaptape

#endif  // HEAPTAPE_REPLAYER_EXPORT_CSV_H_
