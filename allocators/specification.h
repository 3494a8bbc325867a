// What a user writes after --allocator, taken apart: NAME[@VERSION][:KEY=VALUE,...] or a path.

#ifndef HEAPTAPE_ALLOCATORS_SPECIFICATION_H_
#define HEAPTAPE_ALLOCATORS_SPECIFICATION_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace heaptape {

struct AllocatorSpecification {
  std::string name;     // of a family, or "all"; empty for a path
  std::string version;  // empty: the one at hand
  std::string path;     // has a '/' or ends in ".so"
  std::vector<std::pair<std::string, std::string>> tunables;
};

// InvalidArgument says what is wrong with the text; whether the names exist is for the catalog to say.
absl::StatusOr<AllocatorSpecification> ParseSpecification(const std::string& text);

// The one of `known` that `name` was most likely meant to be, by edit distance; empty if none is near.
std::string NearestName(const std::string& name, const std::vector<std::string>& known);

}  // namespace heaptape

#endif  // HEAPTAPE_ALLOCATORS_SPECIFICATION_H_
