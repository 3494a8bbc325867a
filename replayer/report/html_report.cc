#include "replayer/report/html_report.h"

#include <cstddef>
#include <string_view>

#include "replayer/export/json.h"

// The page that bundle.mjs made, as bytes of this program.
asm(".pushsection .rodata\n"
    "heaptape_report_template:\n"
    ".incbin \"" HEAPTAPE_REPORT_TEMPLATE "\"\n"
    "heaptape_report_template_end:\n"
    ".popsection\n");
extern const char heaptape_report_template[];
extern const char heaptape_report_template_end[];

namespace heaptape {
namespace {

constexpr std::string_view kResultsPlace = "@@RESULTS@@";

// JSON inside a script element: "</script" and "<!--" must not occur, whatever file names say.
std::string WithoutTags(const std::string& json) {
  std::string safe;
  safe.reserve(json.size());
  for (const char c : json) {
    if (c == '<') {
      safe += "\\u003c";
    } else {
      safe += c;
    }
  }
  return safe;
}

}  // namespace

absl::StatusOr<std::string> ToHtml(const std::vector<ReplayReport>& reports, const ViewOptions& options) {
  const absl::StatusOr<std::string> json = ToJson(reports, options, JsonTexts::kPlain);
  if (!json.ok()) return json.status();
  const std::string_view page(heaptape_report_template,
                              static_cast<std::size_t>(heaptape_report_template_end - heaptape_report_template));
  const std::size_t place = page.find(kResultsPlace);
  std::string html(page.substr(0, place));
  html += WithoutTags(*json);
  html += page.substr(place + kResultsPlace.size());
  return html;
}

}  // namespace heaptape
