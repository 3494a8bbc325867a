// How commands talk to the user: sentences on stderr, where nobody reads them as data.

#ifndef HEAPTAPE_REPLAYER_COMMANDS_TALK_H_
#define HEAPTAPE_REPLAYER_COMMANDS_TALK_H_

#include <cstddef>
#include <string>

namespace heaptape::commands {

// Breaks `text` at spaces into lines of at most `width` columns, those after the first behind `indent` spaces. Words
// that are longer stay whole, so that a path can be copied. `width` 0: one line. A pure function.
std::string WrapWords(const std::string& text, std::size_t width, std::size_t indent);

// As these are said: PlainText() of external_text.h, but that lines which are indented by two blanks (the end of a build's
// log) stay lines. So none but heaptape begins a line. A pure function.
std::string SpokenText(const std::string& text);

// "heaptape: sentence", on one line, or on a terminal on as many as it takes. This and TellLine are the only ways to
// stderr, but for progress.h: what is external in a sentence need not be escaped by who says it.
void Tell(const std::string& sentence);

// A line without "heaptape: ": what was done.
void TellLine(const std::string& line);

// What another program has printed, line by line.
void TellLines(const std::string& lines);

}  // namespace heaptape::commands

#endif  // HEAPTAPE_REPLAYER_COMMANDS_TALK_H_
