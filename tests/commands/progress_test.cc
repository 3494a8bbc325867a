// What a progress line says, and that nothing is drawn where nobody looks.

#include "replayer/commands/progress.h"

#include <cstdio>
#include <string>

#include "gtest/gtest.h"

namespace heaptape::commands {
namespace {

TEST(ProgressLineTest, ShowsShareRateAndEstimate) {
  EXPECT_EQ(ProgressLine("guard.tape", 25'000'000, 100'000'000, "events", 5, 120),
            "guard.tape  [======                  ]  25 %  5.0 M events/s  15.0 s left");
  EXPECT_EQ(ProgressLine("all", 3, 4, "replays", 6, 120), "all  [==================      ]  75 %  2.0 s left");
}

TEST(ProgressLineTest, BeginsAndEndsWithoutNonsense) {
  EXPECT_EQ(ProgressLine("x", 0, 10, "events", 0, 120), "x  [                        ]   0 %");
  EXPECT_EQ(ProgressLine("x", 12, 10, "events", 1, 120), "x  [========================] 100 %  12 events/s  0 ms left");
  EXPECT_EQ(ProgressLine("x", 12, 0, "files", 1, 120), "x  12 files");
}

TEST(ProgressLineTest, TheNameGivesWayInANarrowTerminal) {
  const std::string line = ProgressLine("a/very/long/path/to/guard.tape  mimalloc 2.0.9", 1, 2, "events", 1, 80);
  EXPECT_EQ(line.size(), 80u);
  EXPECT_EQ(line.substr(0, 3), "...");
  EXPECT_NE(line.find("50 %"), std::string::npos);
  EXPECT_LE(ProgressLine("name", 1, 2, "events", 1, 20).size(), 20u);
}

TEST(ProgressLineTest, CutsNoCharacterInTwo) {
  for (std::size_t width = 20; width < 60; ++width) {
    const std::string line = ProgressLine("größe/größe/größe/größe.tape", 1, 2, "events", 1, width);
    EXPECT_LE(line.size(), width);
    for (std::size_t i = 0; i < line.size(); ++i) {
      const auto byte = static_cast<unsigned char>(line[i]);
      const bool continues = i + 1 < line.size() && (static_cast<unsigned char>(line[i + 1]) & 0xc0) == 0x80;
      if (byte >= 0xc0) EXPECT_TRUE(continues) << line;
      if ((byte & 0xc0) == 0x80) EXPECT_GT(i, 0u);
      if ((byte & 0xc0) == 0x80 && i > 0) EXPECT_GE(static_cast<unsigned char>(line[i - 1]), 0xc0) << line;
    }
  }
}

TEST(ProgressBoardTest, DrawsNothingWithoutATerminal) {
  std::FILE* file = std::tmpfile();
  {
    ProgressBoard board(file);
    const int bar = board.Add("x", 10, "events");
    board.Update(bar, 5);
    board.Say("a line");
    board.Remove(bar);
  }
  EXPECT_EQ(std::ftell(file), 0);
  std::fclose(file);
}

}  // namespace
}  // namespace heaptape::commands
