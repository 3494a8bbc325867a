#include <string>

#include "allocators/parts.h"
#include "replayer/commands/commands.h"

namespace heaptape::commands {

std::string PartPath(const std::string& name) { return PartsFolder() + "/" + name; }

}  // namespace heaptape::commands
