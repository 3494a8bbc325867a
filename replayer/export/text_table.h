// Lays out cells in columns, for terminals and for Markdown. Knows nothing of results.

#ifndef HEAPTAPE_REPLAYER_EXPORT_TEXT_TABLE_H_
#define HEAPTAPE_REPLAYER_EXPORT_TEXT_TABLE_H_

#include <cstddef>
#include <string>
#include <vector>

namespace heaptape {

// Columns that UTF-8 text takes in a terminal, one for each character.
std::size_t DisplayWidth(const std::string& text);

// The first `columns` characters, the last of them an ellipsis where more was there.
std::string Shortened(const std::string& text, std::size_t columns);

enum class Colour { kNone, kGreen, kYellow, kRed, kDim };

struct Cell {
  std::string text;
  Colour colour = Colour::kNone;
};

struct Column {
  std::string title;
  bool right = true;   // alignment
  int importance = 0;  // the column with the lowest goes first where the width does not suffice
};

class TextTable {
 public:
  explicit TextTable(std::vector<Column> columns);

  // As many cells as columns.
  void AddRow(std::vector<Cell> cells);
  bool empty() const { return rows_.empty(); }

  // `width` 0: unlimited. Titles of columns left out are appended to `left_out`.
  std::string Plain(std::size_t width, bool colour, std::vector<std::string>* left_out = nullptr) const;
  std::string Markdown() const;

 private:
  std::vector<std::size_t> Widths() const;

  std::vector<Column> columns_;
  std::vector<std::vector<Cell>> rows_;
};

}  // namespace heaptape

#endif  // HEAPTAPE_REPLAYER_EXPORT_TEXT_TABLE_H_
