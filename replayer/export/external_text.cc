#include "replayer/export/external_text.h"

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <cstring>
#include <iterator>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"

namespace heaptape {
namespace {

struct Character {
  char32_t code = 0;
  std::size_t bytes = 1;
  bool valid = false;  // else the one byte is not UTF-8 here
};

// The first character of `text`, which is not empty.
Character FirstOf(std::string_view text) {
  const auto byte = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const unsigned lead = byte(0);
  if (lead < 0x80) return {lead, 1, true};
  const std::size_t bytes = lead >= 0xc2 && lead < 0xe0 ? 2 : lead >= 0xe0 && lead < 0xf0 ? 3 : lead >= 0xf0 && lead < 0xf5 ? 4 : 0;
  if (bytes == 0) return {};
  char32_t code = lead & (0x7f >> bytes);
  for (std::size_t i = 1; i < bytes; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return {};
    code = code << 6 | (byte(i) & 0x3f);
  }
  const bool longer_than_needed = (bytes == 3 && code < 0x800) || (bytes == 4 && code < 0x10000);
  if (longer_than_needed || (code >= 0xd800 && code < 0xe000) || code > 0x10ffff) return {};
  return {code, bytes, true};
}

// Steers a terminal, ends a line, is invisible or turns the direction of what follows.
bool IsHarmful(char32_t code) {
  static constexpr struct { char32_t first, last; } kRanges[] = {
      {0x00, 0x1f}, {0x7f, 0x9f}, {0x61c, 0x61c}, {0x200b, 0x200b}, {0x200e, 0x200f}, {0x2028, 0x202e},
      {0x2060, 0x206f}, {0xfeff, 0xfeff}, {0xfff9, 0xfffb}, {0xe0000, 0xe007f}};
  return std::any_of(std::begin(kRanges), std::end(kRanges), [&](const auto& range) { return code >= range.first && code <= range.last; });
}

std::string Escape(char32_t code) {
  switch (code) {
    case '\n': return "\\n";
    case '\r': return "\\r";
    case '\t': return "\\t";
    default: break;
  }
  if (code <= 0xff) return absl::StrFormat("\\x%02x", static_cast<unsigned>(code));
  return absl::StrFormat(code <= 0xffff ? "\\u%04x" : "\\U%08x", static_cast<unsigned>(code));
}

std::string Visible(std::string_view text, std::string_view kept) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Character character = FirstOf(text);
    if (!character.valid) {
      absl::StrAppend(&out, absl::StrFormat("\\x%02x", static_cast<unsigned char>(text[0])));
    } else if (IsHarmful(character.code) && kept.find(text[0]) == std::string_view::npos) {
      out += Escape(character.code);
    } else {
      out.append(text.substr(0, character.bytes));
    }
    text.remove_prefix(character.bytes);
  }
  return out;
}

bool IsAlphanumeric(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || (c & 0x80) != 0; }

// A heading, a list, a quotation: what only the beginning of a line can be.
bool BeginsBlock(const std::string& text) {
  const auto at = [&](std::size_t place) { return place < text.size() ? text[place] : '\0'; };
  const std::size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  if (digits > 0) return (at(digits) == '.' || at(digits) == ')') && (at(digits + 1) == ' ' || digits + 1 == text.size());
  if (at(0) == '-' || at(0) == '+') return at(1) == ' ' || at(1) == at(0);
  return at(0) == '=' || at(0) == '>';
}

template <typename Json>
std::string Dump(const Json& json, int indent) {
  const std::string text = json.dump(indent, ' ', false, Json::error_handler_t::replace);
  // Control characters of ASCII but DEL are escaped already; what else is outside of strings is neither.
  std::string out;
  out.reserve(text.size());
  for (std::string_view rest = text; !rest.empty();) {
    const Character character = FirstOf(rest);
    if (character.code < 0x7f || !IsHarmful(character.code)) {
      out.append(rest.substr(0, character.bytes));
    } else if (character.code <= 0xffff) {
      absl::StrAppendFormat(&out, "\\u%04x", static_cast<unsigned>(character.code));
    } else {
      const unsigned beyond = static_cast<unsigned>(character.code) - 0x10000;
      absl::StrAppendFormat(&out, "\\u%04x\\u%04x", 0xd800 + (beyond >> 10), 0xdc00 + (beyond & 0x3ff));
    }
    rest.remove_prefix(character.bytes);
  }
  return out;
}

}  // namespace

std::string PlainText(std::string_view text) { return Visible(text, ""); }

std::string PlainLines(std::string_view text) { return Visible(text, "\n\t"); }

std::string MarkdownText(std::string_view text) {
  const std::string plain = PlainText(text);
  std::string out;
  if (BeginsBlock(plain)) {
    // A backslash escapes punctuation alone: that of a list stands behind its number.
    const std::size_t mark = plain.find_first_not_of("0123456789");
    out = absl::StrCat(plain.substr(0, mark), "\\");
    out += plain[mark];
  }
  for (std::size_t i = out.empty() ? 0 : out.size() - 1; i < plain.size(); ++i) {
    const char c = plain[i];
    // Within a word an underscore means nothing.
    const bool in_word = i > 0 && i + 1 < plain.size() && IsAlphanumeric(plain[i - 1]) && IsAlphanumeric(plain[i + 1]);
    if (c == '_' ? !in_word : std::strchr("\\`*[]<|~&@#$", c) != nullptr) out += '\\';
    out += c;
  }
  return out;
}

std::string MarkdownBlock(std::string_view lines, std::string_view language) {
  std::string text = PlainLines(lines);
  if (!text.empty() && text.back() != '\n') text += '\n';
  std::size_t longest = 0, run = 0;
  for (const char c : text) {
    run = c == '`' ? run + 1 : 0;
    longest = std::max(longest, run);
  }
  const std::string fence(std::max<std::size_t>(3, longest + 1), '`');
  std::string out = fence;
  out.append(language);
  return absl::StrCat(out, "\n", text, fence, "\n");
}

std::string CsvCell(std::string_view text) {
  std::string plain = PlainText(text);
  double number = 0;
  const bool is_formula = !plain.empty() && std::strchr("=+-@", plain[0]) != nullptr;
  if (is_formula && !absl::SimpleAtod(plain, &number)) plain.insert(plain.begin(), '\'');
  if (plain.find_first_of(",\"") == std::string::npos) return plain;
  std::string quoted = "\"";
  for (const char c : plain) {
    if (c == '"') quoted += '"';
    quoted += c;
  }
  return quoted + "\"";
}

std::string HtmlText(std::string_view text) { return HtmlLines(PlainText(text)); }

std::string HtmlLines(std::string_view text) {
  std::string out;
  for (const char c : PlainLines(text)) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      default: out += c;
    }
  }
  return out;
}

std::string JsonText(const nlohmann::json& json, int indent) { return Dump(json, indent); }
std::string JsonText(const nlohmann::ordered_json& json, int indent) { return Dump(json, indent); }

nlohmann::ordered_json WithPlainTexts(const nlohmann::ordered_json& json) {
  if (json.is_string()) return PlainText(json.get_ref<const std::string&>());
  if (!json.is_structured()) return json;
  nlohmann::ordered_json out = json.is_array() ? nlohmann::ordered_json::array() : nlohmann::ordered_json::object();
  for (const auto& [key, value] : json.items()) {
    if (json.is_array()) out.push_back(WithPlainTexts(value));
    else out[PlainText(key)] = WithPlainTexts(value);
  }
  return out;
}

}  // namespace heaptape
