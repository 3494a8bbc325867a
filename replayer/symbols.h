// Names of places in the recorded program, from the symbol tables of its files where they are at hand.

#ifndef HEAPTAPE_REPLAYER_SYMBOLS_H_
#define HEAPTAPE_REPLAYER_SYMBOLS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "traces/trace_info.h"

namespace heaptape {

// A file counts only if it bears the recorded build id: another build has other things in the same places.
// Looked for in `folders`, then where programs and libraries lie on this machine; separate debug files under
// /usr/lib/debug are used too. Nothing is asked of the network. One thread only.
class Symbols {
 public:
  explicit Symbols(std::vector<std::string> folders);
  ~Symbols();
  Symbols(const Symbols&) = delete;
  Symbols& operator=(const Symbols&) = delete;

  // The function around the byte at `offset` of the module's file, "buf_add+0x2f", demangled; followed by
  // " at buffers.c:412" where debug information tells. Empty where nothing is known.
  std::string NameOf(const Module& module, std::uint64_t offset);

 private:
  class File;

  File* Find(const Module& module);

  std::vector<std::string> folders_;
  std::map<std::pair<std::string, std::string>, std::unique_ptr<File>> files_;  // by name and build id; null: not at hand
};

}  // namespace heaptape

#endif  // HEAPTAPE_REPLAYER_SYMBOLS_H_
