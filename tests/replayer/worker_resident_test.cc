#include <gtest/gtest.h>

#include <cstring>

#include "replayer/worker/resident.h"

namespace heaptape::worker {
namespace {

long Statm(const char* text) { return ParseStatm(text, static_cast<long>(std::strlen(text))); }
long Smaps(const char* text, const char* name) { return ParseSmapsField(text, static_cast<long>(std::strlen(text)), name); }

TEST(WorkerResident, StatmIsResidentLessShared) {
  EXPECT_EQ(Statm("1234 500 120 7 0 300 0\n"), 380);
  EXPECT_EQ(Statm("1234 500"), -1);
  EXPECT_EQ(Statm(""), -1);
  EXPECT_EQ(Statm("a b c"), -1);
}

TEST(WorkerResident, SmapsFieldsAreFoundByTheirWholeName) {
  const char* text =
      "55d0-7ffd ---p 00000000 00:00 0 [rollup]\nRss:  2020 kB\nAnonymous:      116 kB\nLazyFree:         8 kB\nAnonHugePages:  0 kB\n";
  EXPECT_EQ(Smaps(text, "Anonymous:"), 116);
  EXPECT_EQ(Smaps(text, "LazyFree:"), 8);
  EXPECT_EQ(Smaps(text, "Swap:"), -1);
  EXPECT_EQ(Smaps("", "Rss:"), -1);
}

}  // namespace
}  // namespace heaptape::worker
