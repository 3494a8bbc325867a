#include "replayer/export/format.h"

#include <cmath>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace heaptape {
namespace {

// Three or four significant digits: "9.87", "98.7", "987.6".
std::string Digits(double value) {
  const double size = std::fabs(value);
  return absl::StrFormat("%.*f", size < 9.995 ? 2 : 1, value);
}

}  // namespace

std::string FormatBytes(double bytes) {
  const char* const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (std::fabs(bytes) < 1024) return absl::StrFormat("%.0f B", bytes);
  int unit = -1;
  // 1023.96 KiB would round to "1024.0 KiB".
  while (std::fabs(bytes) >= 1023.95 && unit < 5) {
    bytes /= 1024;
    ++unit;
  }
  return absl::StrCat(Digits(bytes), " ", units[unit]);
}

std::string FormatGrowth(double bytes_per_day) {
  if (std::fabs(bytes_per_day) < 0.5) return "0/day";
  return absl::StrCat(bytes_per_day > 0 ? "+" : "", FormatBytes(bytes_per_day), "/day");
}

std::string FormatGrowthSeen(double bytes_per_day, std::uint64_t window_ns) {
  const double seconds = static_cast<double>(window_ns) / 1e9;
  const double bytes = bytes_per_day * seconds / 86400;
  if (std::fabs(bytes) < 0.5) return "0";
  return absl::StrCat(bytes > 0 ? "+" : "", FormatBytes(bytes), absl::StrFormat(" in %.*f s", seconds < 9.95 ? 1 : 0, seconds));
}

std::string FormatShare(double share) {
  const double percent = share * 100;
  if (std::fabs(percent) < 0.05) return "0.0 %";
  return absl::StrFormat("%+.*f %%", std::fabs(percent) < 999.95 ? 1 : 0, percent);
}

std::string FormatRatio(double ratio) { return absl::StrFormat("%.2fx", ratio); }

std::string FormatCount(std::uint64_t count) {
  if (count < 10'000) return absl::StrCat(count);
  double value = static_cast<double>(count);
  const char* const units[] = {"k", "M", "G", "T"};
  int unit = -1;
  while (value >= 999.95 && unit < 3) {
    value /= 1000;
    ++unit;
  }
  return absl::StrFormat("%.1f %s", value, units[unit]);
}

std::string FormatUnmatchedFrees(const UnmatchedFrees& frees) {
  std::string text;
  if (frees.unknown != 0) text = absl::StrCat(FormatCount(frees.unknown), " frees of blocks that were not seen being allocated");
  if (frees.missed != 0) {
    absl::StrAppend(&text, text.empty() ? "" : " and ", FormatCount(frees.missed), " blocks that were not seen being freed");
  }
  return text;
}

std::string MissingHeapSentence(const UnmatchedFrees& frees) {
  return absl::StrCat(FormatUnmatchedFrees(frees),
                      ": a part of the heap was not recorded and is missing in every replay, e.g. that of a plugin loaded with RTLD_DEEPBIND, "
                      "of an allocator of the program's own, or of the time before the recording began. The levels of a replay are too low.");
}

std::string FormatDuration(std::uint64_t ns) {
  const double seconds = static_cast<double>(ns) / 1e9;
  if (seconds < 0.9995) return absl::StrFormat("%.0f ms", seconds * 1000);
  if (seconds < 59.95) return absl::StrFormat("%.1f s", seconds);
  const std::uint64_t whole = static_cast<std::uint64_t>(std::llround(seconds));
  if (whole < 3600) return absl::StrFormat("%d min %d s", whole / 60, whole % 60);
  if (whole < 86400) return absl::StrFormat("%d h %d min", whole / 3600, whole % 3600 / 60);
  return absl::StrFormat("%d d %d h", whole / 86400, whole % 86400 / 3600);
}

}  // namespace heaptape
