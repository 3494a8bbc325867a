#include "replayer/commands/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "replayer/export/external_text.h"
#include "replayer/export/format.h"

namespace heaptape::commands {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kFirstDraw(500);
constexpr std::chrono::milliseconds kRedraw(100);
constexpr std::size_t kBarWidth = 24;

// Cutting there would cut a character of UTF-8.
bool IsWithinCharacter(const std::string& text, std::size_t place) {
  return place < text.size() && (static_cast<unsigned char>(text[place]) & 0xc0) == 0x80;
}

double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

}  // namespace

std::size_t TerminalWidth(int descriptor) {
  winsize size{};
  if (!isatty(descriptor)) return 0;
  if (ioctl(descriptor, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

std::string ProgressLine(const std::string& what, std::uint64_t done, std::uint64_t total, const std::string& unit,
                         double elapsed_seconds, std::size_t width) {
  const double rate = elapsed_seconds > 0 ? static_cast<double>(done) / elapsed_seconds : 0;
  std::string right = absl::StrCat(FormatCount(done), " ", unit);
  if (total > 0) {
    done = std::min(done, total);
    const double share = static_cast<double>(done) / static_cast<double>(total);
    const auto filled = static_cast<std::size_t>(share * kBarWidth);
    right = absl::StrCat("[", std::string(filled, '='), std::string(kBarWidth - filled, ' '), "] ",
                         absl::StrFormat("%3d %%", static_cast<int>(share * 100)));
    if (rate > 0) {
      const double left_seconds = static_cast<double>(total - done) / rate;
      if (rate >= 1) absl::StrAppend(&right, "  ", FormatCount(static_cast<std::uint64_t>(rate)), " ", unit, "/s");
      absl::StrAppend(&right, "  ", FormatDuration(static_cast<std::uint64_t>(std::min(left_seconds, 1e8) * 1e9)), " left");
    }
  }
  std::string line = what;
  // The name gives way first: its end tells more than its beginning.
  if (line.size() + 2 + right.size() > width) {
    const std::size_t room = width > right.size() + 5 ? width - right.size() - 5 : 0;
    std::size_t start = line.size() - std::min(room, line.size());
    while (IsWithinCharacter(line, start)) ++start;
    line = room > 0 ? "..." + line.substr(start) : "";
  }
  if (!line.empty()) line += "  ";
  line += right;
  std::size_t end = std::min(width, line.size());
  while (IsWithinCharacter(line, end)) --end;
  return line.substr(0, end);
}

ProgressBoard::ProgressBoard(std::FILE* out)
    : out_(out), terminal_(TerminalWidth(fileno(out)) > 0), start_(Clock::now()), last_draw_(start_) {}

ProgressBoard::~ProgressBoard() {
  Erase();
  std::fflush(out_);
}

int ProgressBoard::Add(const std::string& what, std::uint64_t total, const std::string& unit) {
  const std::lock_guard lock(mutex_);
  bars_[next_] = {PlainText(what), unit, 0, total, Clock::now()};
  Draw(false);
  return next_++;
}

void ProgressBoard::Update(int bar, std::uint64_t done) {
  const std::lock_guard lock(mutex_);
  const auto found = bars_.find(bar);
  if (found == bars_.end()) return;
  found->second.done = done;
  Draw(false);
}

void ProgressBoard::Remove(int bar) {
  const std::lock_guard lock(mutex_);
  bars_.erase(bar);
  Draw(drawn_lines_ > 0);
}

void ProgressBoard::Say(const std::string& line) {
  const std::lock_guard lock(mutex_);
  if (!terminal_) return;
  Erase();
  std::fprintf(out_, "%s\n", PlainText(line).c_str());
  Draw(true);
}

void ProgressBoard::Erase() {
  if (drawn_lines_ > 0) std::fprintf(out_, "\x1b[%zuA\r\x1b[J", drawn_lines_);
  drawn_lines_ = 0;
}

void ProgressBoard::Draw(bool now) {
  if (!terminal_) return;
  const Clock::time_point time = Clock::now();
  if (time - start_ < kFirstDraw || (!now && time - last_draw_ < kRedraw)) return;
  last_draw_ = time;
  Erase();
  const std::size_t width = std::max<std::size_t>(TerminalWidth(fileno(out_)), 20) - 1;
  for (const auto& [number, bar] : bars_) {
    const std::string line = ProgressLine(bar.what, bar.done, bar.total, bar.unit, SecondsSince(bar.start), width);
    std::fprintf(out_, "%s\n", line.c_str());
    ++drawn_lines_;
  }
  std::fflush(out_);
}

}  // namespace heaptape::commands
