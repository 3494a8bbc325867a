#include "allocators/specification.h"

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <numeric>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace heaptape {
namespace {

std::string LowerCase(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

std::size_t EditDistance(const std::string& from, const std::string& to) {
  std::vector<std::size_t> row(to.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= from.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= to.size(); ++j) {
      const std::size_t replaced = diagonal + (from[i - 1] == to[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row.back();
}

// Where the tunables begin: the first ':' that is followed by a name and '=', so that paths and values may hold colons, else
// the first one behind the path.
std::optional<std::size_t> TunablesBegin(const std::string& text) {
  for (std::size_t colon = text.find(':'); colon != std::string::npos; colon = text.find(':', colon + 1)) {
    const auto end = std::find_if_not(text.begin() + static_cast<std::ptrdiff_t>(colon) + 1, text.end(),
                                      [](unsigned char c) { return std::isalnum(c) != 0 || c == '_'; });
    if (end != text.end() && *end == '=' && text[colon + 1] != '=') return colon;
  }
  const std::size_t last_slash = text.rfind('/');
  const std::size_t colon = text.find(':', last_slash == std::string::npos ? 0 : last_slash);
  if (colon == std::string::npos) return std::nullopt;
  return colon;
}

}  // namespace

absl::StatusOr<AllocatorSpecification> ParseSpecification(const std::string& text) {
  AllocatorSpecification specification;
  std::string name = text;
  if (const auto colon = TunablesBegin(text)) {
    name = text.substr(0, *colon);
    for (const auto part : absl::StrSplit(text.substr(*colon + 1), ',')) {
      const std::string tunable(part.data(), part.size());
      const std::size_t equals = tunable.find('=');
      if (equals == 0 || equals == std::string::npos || equals + 1 == tunable.size()) {
        return absl::InvalidArgumentError(
            absl::StrCat("allocator \"", text, "\": \"", tunable, "\" is no KEY=VALUE; write NAME[@VERSION][:KEY=VALUE,...]"));
      }
      specification.tunables.emplace_back(tunable.substr(0, equals), tunable.substr(equals + 1));
    }
  }
  if (name.find('/') != std::string::npos || (name.size() > 3 && name.compare(name.size() - 3, 3, ".so") == 0)) {
    specification.path = name;
    return specification;
  }
  if (const std::size_t at = name.find('@'); at != std::string::npos) {
    specification.version = name.substr(at + 1);
    name.resize(at);
    if (specification.version.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("allocator \"", text, "\" names no version after the @; write ", name, " or ", name, "@VERSION"));
    }
  }
  if (name.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("allocator \"", text, "\" has no name; `heaptape allocators` lists them"));
  }
  specification.name = name;
  return specification;
}

std::string NearestName(const std::string& name, const std::vector<std::string>& known) {
  const std::string wanted = LowerCase(name);
  std::string nearest;
  std::size_t best = std::max<std::size_t>(2, wanted.size() / 2) + 1;
  for (const std::string& candidate : known) {
    std::size_t distance = EditDistance(wanted, LowerCase(candidate));
    // "decay" is nearer to "dirty_decay_ms" than its length says.
    if (wanted.size() >= 3 && candidate.find(wanted) != std::string::npos) distance = std::min<std::size_t>(distance, 2);
    if (distance < best) {
      best = distance;
      nearest = candidate;
    }
  }
  return nearest;
}

}  // namespace heaptape
