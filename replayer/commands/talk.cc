#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "replayer/commands/commands.h"
#include "replayer/commands/progress.h"
#include "replayer/commands/talk.h"
#include "replayer/export/external_text.h"

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

std::string SpokenText(const std::string& text) {
  static constexpr char kNextLine[] = "\n  ";
  std::string spoken;
  for (std::size_t start = 0; start <= text.size();) {
    const std::size_t end = std::min(text.find(kNextLine, start), text.size());
    absl::StrAppend(&spoken, start > 0 ? kNextLine : "", PlainText(text.substr(start, end - start)));
    start = end + (end < text.size() ? std::strlen(kNextLine) : 1);
  }
  return spoken;
}

void Tell(const std::string& sentence) {
  std::fprintf(stderr, "%s\n", WrapWords(absl::StrCat("heaptape: ", SpokenText(sentence)), TerminalWidth(STDERR_FILENO), 2).c_str());
}

void TellLine(const std::string& line) { std::fprintf(stderr, "%s\n", SpokenText(line).c_str()); }

void TellLines(const std::string& lines) { std::fputs(PlainLines(lines).c_str(), stderr); }

int Fail(const absl::Status& status) {
  Tell(std::string(status.message()));
  return status.code() == absl::StatusCode::kInvalidArgument ? kExitUsage : kExitFailed;
}

}  // namespace heaptape::commands
