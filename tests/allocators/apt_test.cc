#include "allocators/apt.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace heaptape {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

TEST(AptSources, OneLineFormatWithOptionsAndComments) {
  const auto sources = ParseSourcesList(
      "# deb http://old.example/debian wheezy main\n"
      "deb [arch=amd64 signed-by=/usr/share/keyrings/a.gpg] http://mirror.example/debian trixie main contrib # ours\n"
      "deb-src http://mirror.example/debian trixie main\n"
      "deb http://other.example/x\n");
  ASSERT_THAT(sources, SizeIs(1));
  EXPECT_EQ(sources[0].uri, "http://mirror.example/debian");
  EXPECT_THAT(sources[0].suites, ElementsAre("trixie"));
  EXPECT_THAT(sources[0].components, ElementsAre("main", "contrib"));
  EXPECT_EQ(sources[0].signed_by, "/usr/share/keyrings/a.gpg");
}

TEST(AptSources, Deb822FormatWithSeveralStanzas) {
  const auto sources = ParseDeb822Sources(
      "Types: deb deb-src\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\n"
      "Signed-By: /usr/share/keyrings/b.gpg\n\n"
      "Types: deb\nURIs: http://off.example/debian\nSuites: bookworm\nComponents: main\nEnabled: no\n\n"
      "Types: deb\nURIs: http://inline.example/debian\nSuites: sid\nComponents: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n\n"
      "Types: deb-src\nURIs: http://source.example/debian\nSuites: sid\nComponents: main\n");
  ASSERT_THAT(sources, SizeIs(2));
  EXPECT_EQ(sources[0].uri, "http://mirror.example/debian");
  EXPECT_THAT(sources[0].suites, ElementsAre("bookworm", "bookworm-updates"));
  EXPECT_EQ(sources[0].signed_by, "/usr/share/keyrings/b.gpg");
  EXPECT_EQ(sources[1].uri, "http://inline.example/debian");
  EXPECT_THAT(sources[1].signed_by, IsEmpty());
}

TEST(AptSources, TheMirrorIsTheOneWithADebianRelease) {
  const auto mirror = DebianMirror({{"http://node.example", {"nodistro"}, {"main"}, ""},
                                    {"http://security.example", {"bookworm-security"}, {"main"}, ""},
                                    {"http://mirror.example/debian", {"bookworm"}, {"main"}, ""}});
  ASSERT_TRUE(mirror.ok());
  EXPECT_EQ(mirror->uri, "http://mirror.example/debian");
  const auto none = DebianMirror({{"http://node.example", {"nodistro"}, {"main"}, ""}});
  EXPECT_EQ(none.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(none.status().message()), HasSubstr("--source"));
}

TEST(AptSources, TheRunningReleaseIsRead) {
  EXPECT_EQ(RunningRelease("ID=debian\nVERSION_CODENAME=trixie\n"), "trixie");
  EXPECT_EQ(RunningRelease("VERSION_CODENAME=\"bookworm\"\n"), "bookworm");
  EXPECT_EQ(RunningRelease("ID=ubuntu\nVERSION_CODENAME=noble\n"), "");
}

}  // namespace
}  // namespace heaptape
