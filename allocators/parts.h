// Where the parts of heaptape lie that are loaded or started: worker, probe, baseline library.

#ifndef HEAPTAPE_ALLOCATORS_PARTS_H_
#define HEAPTAPE_ALLOCATORS_PARTS_H_

#include <string>

namespace heaptape {

// The folder beside the running program, so that an installed tree works wherever it is moved to.
std::string PartsFolder();

}  // namespace heaptape

#endif  // HEAPTAPE_ALLOCATORS_PARTS_H_
