#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "replayer/commands/commands.h"
#include "replayer/commands/progress.h"
#include "replayer/commands/talk.h"

namespace heaptape::commands {

std::string WrapWords(const std::string& text, std::size_t width, std::size_t indent) {
  std::string wrapped;
  std::size_t column = 0;
  for (const absl::string_view word : absl::StrSplit(text, ' ')) {
    if (width > 0 && column > indent && column + 1 + std::min(word.find('\n'), word.size()) > width) {
      absl::StrAppend(&wrapped, "\n", std::string(indent, ' '));
      column = indent;
    } else if (!wrapped.empty()) {
      wrapped += ' ';
      ++column;
    }
    absl::StrAppend(&wrapped, word);
    const std::size_t line_end = word.rfind('\n');
    column = line_end == absl::string_view::npos ? column + word.size() : word.size() - line_end - 1;
  }
  return wrapped;
}

void Tell(const std::string& sentence) {
  std::fprintf(stderr, "%s\n", WrapWords(absl::StrCat("heaptape: ", sentence), TerminalWidth(STDERR_FILENO), 2).c_str());
}

int Fail(const absl::Status& status) {
  Tell(std::string(status.message()));
  return status.code() == absl::StatusCode::kInvalidArgument ? kExitUsage : kExitFailed;
}

}  // namespace heaptape::commands
