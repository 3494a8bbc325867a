// Progress on a terminal: one bar per running piece of work, redrawn in place.
//
//   ProgressBoard board;                      // on stderr
//   const int bar = board.Add("guard.tape, glibc 2.36", 60'700'000, "events");
//   board.Update(bar, done);                  // from any thread, as often as one likes
//   board.Remove(bar);
//
// Draws nothing where stderr is no terminal, and nothing before half a second has passed.

#ifndef HEAPTAPE_REPLAYER_COMMANDS_PROGRESS_H_
#define HEAPTAPE_REPLAYER_COMMANDS_PROGRESS_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <map>
#include <mutex>
#include <string>

namespace heaptape::commands {

// Columns of the terminal behind `descriptor`, or 0 where it is none.
std::size_t TerminalWidth(int descriptor);

// One line of at most `width` columns: what, bar, percentage, rate, estimate. `total` 0: not known, and
// only what was done is shown. A pure function.
std::string ProgressLine(const std::string& what, std::uint64_t done, std::uint64_t total, const std::string& unit,
                         double elapsed_seconds, std::size_t width);

// Thread-safe.
class ProgressBoard {
 public:
  explicit ProgressBoard(std::FILE* out = stderr);
  ~ProgressBoard();  // leaves no bar behind
  ProgressBoard(const ProgressBoard&) = delete;
  ProgressBoard& operator=(const ProgressBoard&) = delete;

  int Add(const std::string& what, std::uint64_t total, const std::string& unit);
  void Update(int bar, std::uint64_t done);
  void Remove(int bar);
  // A line that stays, above the bars. Only on a terminal, like the bars.
  void Say(const std::string& line);

 private:
  struct Bar {
    std::string what, unit;
    std::uint64_t done = 0, total = 0;
    std::chrono::steady_clock::time_point start;
  };

  void Erase();
  void Draw(bool now);

  std::mutex mutex_;
  std::FILE* out_;
  bool terminal_;
  std::map<int, Bar> bars_;
  int next_ = 0;
  std::size_t drawn_lines_ = 0;
  std::chrono::steady_clock::time_point start_, last_draw_;
};

}  // namespace heaptape::commands

#endif  // HEAPTAPE_REPLAYER_COMMANDS_PROGRESS_H_
