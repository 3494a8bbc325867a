// The baseline: never reuses a freed block, so its memory is the sum of all requests, and its speed the floor.

#include "allocators/family.h"

namespace heaptape::families {

extern const Family bump = {
    .name = "bump",
    .summary = "baseline: never reuses memory, shows the least time and the most memory",
    .libraries = {"libheaptape_bump.so"},
    .builtin = Family::Builtin::kOurs,
    .version_query = VersionQuery::kText,
    .version_symbol = "heaptape_bump_version",
    .statistics = "none",
    .purge = "none",
    .in_all = false,
    .caveat = "its memory grows with every request: long recordings need a memory limit",
};

}  // namespace heaptape::families
