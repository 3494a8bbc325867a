// The summary as a table: plain text for a terminal, or Markdown for a pull request.

#ifndef HEAPTAPE_REPLAYER_EXPORT_TABLE_H_
#define HEAPTAPE_REPLAYER_EXPORT_TABLE_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "replayer/export/summary.h"
#include "replayer/results.h"

namespace heaptape {

struct TerminalOptions {
  std::size_t width = 0;  // columns; 0: as wide as the table likes
  bool colour = false;
};

// InvalidArgument if the baseline is unknown. A table too wide for the terminal loses its least
// important columns, and a line under it says which.
absl::StatusOr<std::string> ToTable(const std::vector<ReplayReport>& reports, const ViewOptions& options,
                                    const TerminalOptions& terminal);
absl::StatusOr<std::string> ToMarkdown(const std::vector<ReplayReport>& reports, const ViewOptions& options);

// The words of `command` so that a POSIX shell reads them back: "heaptape replay 'my trace.tape'".
std::string ShellText(const std::vector<std::string>& command);

}  // namespace heaptape

#endif  // HEAPTAPE_REPLAYER_EXPORT_TABLE_H_
