// Results as JSON, and back: the format that everything else is made from (results.schema.json).

#ifndef HEAPTAPE_REPLAYER_EXPORT_JSON_H_
#define HEAPTAPE_REPLAYER_EXPORT_JSON_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "replayer/export/summary.h"
#include "replayer/results.h"

namespace heaptape {

inline constexpr int kResultsSchemaVersion = 2;

// As they are, or as PlainText() of external_text.h shows them: for a page that puts them before a reader.
enum class JsonTexts { kExact, kPlain };

// Same results, same text. InvalidArgument if the baseline is unknown.
absl::StatusOr<std::string> ToJson(const std::vector<ReplayReport>& reports, const ViewOptions& options, JsonTexts texts = JsonTexts::kExact);

// Reads what ToJson() wrote; the summaries in it are made anew by whoever needs them. Nothing in the
// text is trusted. `name` stands in messages. DataLoss says what is wrong and where.
absl::StatusOr<std::vector<ReplayReport>> ParseJson(const std::string& text, const std::string& name);

}  // namespace heaptape

#endif  // HEAPTAPE_REPLAYER_EXPORT_JSON_H_
