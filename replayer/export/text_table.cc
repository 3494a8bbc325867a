#include "replayer/export/text_table.h"

#include <algorithm>
#include <numeric>

#include "replayer/export/external_text.h"

namespace heaptape {
namespace {

constexpr std::size_t kGap = 2;

const char* Escape(Colour colour) {
  switch (colour) {
    case Colour::kGreen:
      return "\x1b[32m";
    case Colour::kYellow:
      return "\x1b[33m";
    case Colour::kRed:
      return "\x1b[31m";
    case Colour::kDim:
      return "\x1b[2m";
    case Colour::kNone:
      break;
  }
  return "";
}

}  // namespace

std::size_t DisplayWidth(const std::string& text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

std::string Shortened(const std::string& text, std::size_t columns) {
  if (DisplayWidth(text) <= columns) return text;
  std::string kept;
  std::size_t count = 0;
  for (const char c : text) {
    if ((c & 0xc0) != 0x80 && ++count >= columns) break;
    kept += c;
  }
  return kept + "…";
}

TextTable::TextTable(std::vector<Column> columns) : columns_(std::move(columns)) {
  for (Column& column : columns_) column.title = PlainText(column.title);
}

void TextTable::AddRow(std::vector<Cell> cells) {
  for (Cell& cell : cells) cell.text = PlainText(cell.text);
  rows_.push_back(std::move(cells));
}

std::vector<std::size_t> TextTable::Widths() const {
  std::vector<std::size_t> widths;
  for (std::size_t i = 0; i < columns_.size(); ++i) {
    std::size_t width = DisplayWidth(columns_[i].title);
    for (const auto& row : rows_) width = std::max(width, DisplayWidth(row[i].text));
    widths.push_back(width);
  }
  return widths;
}

std::string TextTable::Plain(std::size_t width, bool colour, std::vector<std::string>* left_out) const {
  const std::vector<std::size_t> widths = Widths();
  std::vector<bool> shown(columns_.size(), true);
  const auto total = [&] {
    std::size_t sum = 0;
    for (std::size_t i = 0; i < widths.size(); ++i) sum += shown[i] ? widths[i] + kGap : 0;
    return sum - kGap;
  };
  while (width > 0 && total() > width && std::count(shown.begin(), shown.end(), true) > 1) {
    std::size_t least = 0;
    while (!shown[least]) ++least;
    for (std::size_t i = least + 1; i < columns_.size(); ++i) {
      if (shown[i] && columns_[i].importance < columns_[least].importance) least = i;
    }
    shown[least] = false;
  }
  for (std::size_t i = 0; left_out != nullptr && i < columns_.size(); ++i) {
    if (!shown[i]) left_out->push_back(columns_[i].title);
  }

  std::string out;
  const auto line = [&](const std::vector<Cell>& cells) {
    std::string text;
    for (std::size_t i = 0; i < columns_.size(); ++i) {
      if (!shown[i]) continue;
      if (!text.empty()) text.append(kGap, ' ');
      const std::string& cell = cells[i].text;
      const std::string padding(widths[i] - std::min(widths[i], DisplayWidth(cell)), ' ');
      if (columns_[i].right) text += padding;
      const bool coloured = colour && cells[i].colour != Colour::kNone;
      text += coloured ? Escape(cells[i].colour) + cell + "\x1b[0m" : cell;
      if (!columns_[i].right) text += padding;
    }
    text.erase(text.find_last_not_of(' ') + 1);
    out += text + "\n";
  };
  std::vector<Cell> head;
  for (const Column& column : columns_) head.push_back({column.title, Colour::kDim});
  line(head);
  for (const auto& row : rows_) line(row);
  return out;
}

std::string TextTable::Markdown() const {
  std::string out;
  const auto line = [&](const std::vector<Cell>& cells) {
    out += "|";
    for (const Cell& cell : cells) out += " " + MarkdownText(cell.text) + " |";
    out += "\n";
  };
  std::vector<Cell> head;
  for (const Column& column : columns_) head.push_back({column.title});
  line(head);
  out += "|";
  for (const Column& column : columns_) out += column.right ? "---:|" : ":---|";
  out += "\n";
  for (const auto& row : rows_) line(row);
  return out;
}

}  // namespace heaptape
