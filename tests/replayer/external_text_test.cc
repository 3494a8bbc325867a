// What strangers wrote is shown, and does nothing.

#include "replayer/export/external_text.h"

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace heaptape {
namespace {

TEST(PlainTextTest, LeavesWordsAlone) {
  for (const char* const text : {"", "guard.tape", "C:\\x1b", "größe 5 ± 1 → ✓ 日本 👩‍👩‍👧 \u00a0", "a'b\"c <d> |e| `f`"}) EXPECT_EQ(PlainText(text), text);
}

TEST(PlainTextTest, ShowsWhatSteersATerminal) {
  EXPECT_EQ(PlainText("\x1b]0;title\a"), "\\x1b]0;title\\x07");
  EXPECT_EQ(PlainText(std::string("a\0b\x7f", 4)), "a\\x00b\\x7f");
  EXPECT_EQ(PlainText("a\nheaptape: forged\r\tb"), "a\\nheaptape: forged\\r\\tb");
  EXPECT_EQ(PlainText("\u009b31m"), "\\x9b31m") << "a control character of Latin-1";
}

TEST(PlainTextTest, ShowsWhatHidesText) {
  EXPECT_EQ(PlainText("a\u202eb\u2066c\u200fd\ufeffe"), "a\\u202eb\\u2066c\\u200fd\\ufeffe");
  EXPECT_EQ(PlainText("a\u2028b\u2029c"), "a\\u2028b\\u2029c");
  EXPECT_EQ(PlainText("\U000e0041"), "\\U000e0041");
}

TEST(PlainTextTest, ShowsBytesThatAreNoUtf8) {
  EXPECT_EQ(PlainText("a\x80z"), "a\\x80z");
  EXPECT_EQ(PlainText("\xc3"), "\\xc3");
  EXPECT_EQ(PlainText("\xc3("), "\\xc3(");
  EXPECT_EQ(PlainText("\xc0\x9b"), "\\xc0\\x9b") << "longer than needed";
  EXPECT_EQ(PlainText("\xe0\x80\x9b"), "\\xe0\\x80\\x9b");
  EXPECT_EQ(PlainText("\xed\xa0\x80"), "\\xed\\xa0\\x80") << "a surrogate";
  EXPECT_EQ(PlainText("\xf5\x80\x80\x80\xff"), "\\xf5\\x80\\x80\\x80\\xff");
}

TEST(PlainTextTest, GivesTheSameForWhatItGave) {
  std::string every;
  for (int byte = 0; byte < 256; ++byte) every += static_cast<char>(byte);
  EXPECT_EQ(PlainText(PlainText(every)), PlainText(every));
}

TEST(PlainLinesTest, KeepsLinesAndTabs) { EXPECT_EQ(PlainLines("a\n\tb\r\n\x1b[1m"), "a\n\tb\\r\n\\x1b[1m"); }

TEST(MarkdownTextTest, IsShownLiterally) {
  EXPECT_EQ(MarkdownText("<script> [x](y) `z` *a* ~~b~~ @ada #1 | & $x$"),
            "\\<script> \\[x\\](y) \\`z\\` \\*a\\* \\~\\~b\\~\\~ \\@ada \\#1 \\| \\& \\$x\\$");
  EXPECT_EQ(MarkdownText("purge_delay=0 _a_ __b__"), "purge_delay=0 \\_a\\_ \\_\\_b\\_\\_");
  EXPECT_EQ(MarkdownText("a\n| b"), "a\\\\n\\| b");
}

TEST(MarkdownTextTest, BeginsNoBlock) {
  EXPECT_EQ(MarkdownText("- a"), "\\- a");
  EXPECT_EQ(MarkdownText("+ a"), "\\+ a");
  EXPECT_EQ(MarkdownText("---"), "\\---");
  EXPECT_EQ(MarkdownText("> a"), "\\> a");
  EXPECT_EQ(MarkdownText("# a"), "\\# a");
  EXPECT_EQ(MarkdownText("=== a"), "\\=== a");
  EXPECT_EQ(MarkdownText("12. _a"), "12\\. \\_a");
  for (const char* const text : {"2.0.9", "405 MiB", "-", "+1.02 GiB/day", "-5 %", "", "7"}) EXPECT_EQ(MarkdownText(text), text);
}

TEST(MarkdownBlockTest, NothingInItEndsIt) {
  EXPECT_EQ(MarkdownBlock("a", "sh"), "```sh\na\n```\n");
  EXPECT_EQ(MarkdownBlock("````\nb\x1b\n", ""), "`````\n````\nb\\x1b\n`````\n");
}

TEST(CsvCellTest, IsNeverAFormula) {
  EXPECT_EQ(CsvCell("=cmd|' /C calc'!A0"), "'=cmd|' /C calc'!A0");
  EXPECT_EQ(CsvCell("@SUM(1,2)"), "\"'@SUM(1,2)\"");
  EXPECT_EQ(CsvCell("+1+cmd"), "'+1+cmd");
  EXPECT_EQ(CsvCell("-2+3"), "'-2+3");
  EXPECT_EQ(CsvCell("\t=1"), "\\t=1");
  EXPECT_EQ(CsvCell("\r=1"), "\\r=1");
}

TEST(CsvCellTest, NumbersAndWordsStay) {
  for (const char* const text : {"", "-5", "+1.5", "-1e9", "mimalloc 2.0.9", "a=b"}) EXPECT_EQ(CsvCell(text), text);
}

TEST(CsvCellTest, IsOneFieldOfOneLine) { EXPECT_EQ(CsvCell("a,\"b\"\nc"), "\"a,\"\"b\"\"\\nc\""); }

TEST(HtmlTextTest, HasNoTags) {
  EXPECT_EQ(HtmlText("<a href=\"x\" id='y'>&\n"), "&lt;a href=&quot;x&quot; id=&#39;y&#39;&gt;&amp;\\n");
  EXPECT_EQ(HtmlLines("<\n>"), "&lt;\n&gt;");
}

TEST(JsonTextTest, NeverThrowsAndReadsBackAsItWas) {
  const std::string harmful = "\x1b\u009b\x7f\u202e\U000e0041\u2028 größe ± 👩";
  const nlohmann::ordered_json json = {{harmful, {harmful, 1, true, nullptr}}};
  for (const int indent : {-1, 2}) {
    const std::string text = JsonText(json, indent);
    EXPECT_EQ(nlohmann::ordered_json::parse(text), json);
    EXPECT_EQ(text.find('\x7f'), std::string::npos);
    EXPECT_EQ(PlainLines(text), text) << "nothing harmful is left in it";
    EXPECT_NE(text.find("größe ± 👩"), std::string::npos);
  }
  EXPECT_EQ(nlohmann::json::parse(JsonText(nlohmann::json{{"a", "b\x80"}})), (nlohmann::json{{"a", "b\ufffd"}}));
}

TEST(WithPlainTextsTest, ChangesTextsAndKeysAlone) {
  const nlohmann::ordered_json json = {{"\x1b", {"\u202e", 1.5, {{"b", "c\n"}}}}};
  EXPECT_EQ(WithPlainTexts(json), (nlohmann::ordered_json{{"\\x1b", {"\\u202e", 1.5, {{"b", "c\\n"}}}}}));
}

}  // namespace
}  // namespace heaptape
