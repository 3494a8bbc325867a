// Text from outside (program names, versions, paths, error texts, commit subjects, words of the command line) on its way
// to a reader. Everything that prints such text, or writes it to a file, passes it through one of these.
//
// They all show as visible escapes (\x1b, \n, \u202e) what could steer a terminal, forge a line or hide text: control
// characters of ASCII and Latin-1, bytes that are not UTF-8, line separators, invisible characters and those that change
// the direction of writing. What is left is UTF-8. A backslash stays as it is.

#ifndef HEAPTAPE_REPLAYER_EXPORT_EXTERNAL_TEXT_H_
#define HEAPTAPE_REPLAYER_EXPORT_EXTERNAL_TEXT_H_

#include <string>
#include <string_view>

#include "nlohmann/json_fwd.hpp"

namespace heaptape {

// For the terminal and for text files: one line. The same for what it gave.
std::string PlainText(std::string_view text);

// As PlainText, but line feeds and tabs stay: for what is a text of several lines, as a log.
std::string PlainLines(std::string_view text);

// For Markdown, in a paragraph or in a cell of a table: shown literally, without links, HTML, mentions or emphasis.
std::string MarkdownText(std::string_view text);

// A Markdown code block of these lines that none of them can end. `language` may be empty.
std::string MarkdownBlock(std::string_view lines, std::string_view language);

// One field of a CSV file. A spreadsheet takes none for a formula; numbers stay as they are.
std::string CsvCell(std::string_view text);

// For HTML and XML, also between quotes: one line, or several.
std::string HtmlText(std::string_view text);
std::string HtmlLines(std::string_view text);

// The only way in which JSON is written. Never throws: bytes that are not UTF-8 become U+FFFD. Parses to the same as
// json.dump(); what PlainText escapes stands as \uXXXX. `indent` -1: one line.
std::string JsonText(const nlohmann::json& json, int indent = 2);
std::string JsonText(const nlohmann::ordered_json& json, int indent = 2);

// The same value with PlainText in place of every text, keys too: for a page that shows them.
nlohmann::ordered_json WithPlainTexts(const nlohmann::ordered_json& json);

}  // namespace heaptape

#endif  // HEAPTAPE_REPLAYER_EXPORT_EXTERNAL_TEXT_H_
