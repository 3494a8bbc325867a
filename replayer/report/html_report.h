// Results as one HTML file that works without network, with the results themselves inside it.

#ifndef HEAPTAPE_REPLAYER_REPORT_HTML_REPORT_H_
#define HEAPTAPE_REPLAYER_REPORT_HTML_REPORT_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "replayer/export/summary.h"
#include "replayer/results.h"

namespace heaptape {

// InvalidArgument if the baseline is unknown.
absl::StatusOr<std::string> ToHtml(const std::vector<ReplayReport>& reports, const ViewOptions& options);

}  // namespace heaptape

#endif  // HEAPTAPE_REPLAYER_REPORT_HTML_REPORT_H_
