// Where sentences are broken on a terminal.

#include "replayer/commands/talk.h"

#include "gtest/gtest.h"

namespace heaptape::commands {
namespace {

TEST(WrapWordsTest, BreaksAtSpacesAlone) {
  EXPECT_EQ(WrapWords("heaptape: this sentence is too long", 20, 2), "heaptape: this\n  sentence is too\n  long");
}

TEST(WrapWordsTest, ALineMayBeFull) {
  EXPECT_EQ(WrapWords("aaaa bbbbb cc", 10, 2), "aaaa bbbbb\n  cc");
}

TEST(WrapWordsTest, LeavesLongWordsWhole) {
  EXPECT_EQ(WrapWords("see /a/very/long/path/to/guard.tape now", 12, 2), "see\n  /a/very/long/path/to/guard.tape\n  now");
}

TEST(WrapWordsTest, KeepsLineBreaksThatAreThere) {
  EXPECT_EQ(WrapWords("first line\nsecond line", 14, 2), "first line\nsecond line");
}

TEST(WrapWordsTest, ChangesNothingWithoutAWidth) {
  EXPECT_EQ(WrapWords("two  spaces and a long sentence", 0, 2), "two  spaces and a long sentence");
}

TEST(SpokenTextTest, OnlyIndentedLinesStayLines) {
  EXPECT_EQ(SpokenText("does not build. The end of log:\n  cc: error\n  more"), "does not build. The end of log:\n  cc: error\n  more");
  EXPECT_EQ(SpokenText("a\nheaptape: forged: all is well"), "a\\nheaptape: forged: all is well");
  EXPECT_EQ(SpokenText("\x1b]0;title\a.tape: cannot open"), "\\x1b]0;title\\x07.tape: cannot open");
  EXPECT_EQ(SpokenText("\n  "), "\n  ");
  EXPECT_EQ(SpokenText(""), "");
}

}  // namespace
}  // namespace heaptape::commands
