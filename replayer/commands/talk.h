// How commands talk to the user: sentences on stderr, where nobody reads them as data.

#ifndef HEAPTAPE_REPLAYER_COMMANDS_TALK_H_
#define HEAPTAPE_REPLAYER_COMMANDS_TALK_H_

#include <cstddef>
#include <string>

namespace heaptape::commands {

// Breaks `text` at spaces into lines of at most `width` columns, those after the first behind `indent` spaces. Words
// that are longer stay whole, so that a path can be copied. `width` 0: one line. A pure function.
std::string WrapWords(const std::string& text, std::size_t width, std::size_t indent);

// "heaptape: sentence", on one line, or on a terminal on as many as it takes.
void Tell(const std::string& sentence);

}  // namespace heaptape::commands

#endif  // HEAPTAPE_REPLAYER_COMMANDS_TALK_H_
