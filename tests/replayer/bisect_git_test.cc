#include "allocators/git.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "allocators/process.h"
#include "tests/replayer/bisect_repository.h"

namespace heaptape {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(ProcessTest, CapturesBothStreamsAndTheStatus) {
  const auto result = RunProcess({"sh", "-c", "echo out; echo err >&2; exit 7"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->output, "out\n");
  EXPECT_EQ(result->errors, "err\n");
  EXPECT_EQ(result->exit_status, 7);
  EXPECT_EQ(RunProcess({"sh", "-c", "kill -SEGV $$"})->exit_status, 128 + 11);
}

TEST(ProcessTest, TakesMoreThanAPipeHoldsAndNoShell) {
  const auto result = RunProcess({"head", "-c", "1000000", "/dev/zero"});
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->output.size(), 1000000u);
  EXPECT_EQ(RunProcess({"echo", "$HOME; `id`"})->output, "$HOME; `id`\n");
}

TEST(ProcessTest, RunsWhereAndWithWhatItIsTold) {
  const TemporaryFolder folder;
  const auto result = RunProcess({"sh", "-c", "pwd; echo $COLOUR; echo ${HOME-none}; cat"},
                                 {.directory = folder.path(), .environment = {{"COLOUR", "red"}}, .without = {"HOME"}});
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->output, folder.path() + "\nred\nnone\n");
  const auto logged = RunProcess({"sh", "-c", "echo one; echo two >&2"}, {.log_path = folder / "log"});
  ASSERT_TRUE(logged.ok());
  std::ifstream log(folder / "log");
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(log), {}), "one\ntwo\n");
}

TEST(ProcessTest, SaysWhatCannotBeStarted) {
  EXPECT_EQ(RunProcess({"no-such-program"}).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(RunProcess({"true"}, {.directory = "/no/such/folder"}).status().message(), HasSubstr("/no/such/folder"));
}

TEST(ProcessTest, CancellingKillsTheWholeGroup) {
  const TemporaryFolder folder;
  std::atomic<bool> cancelled = false;
  // The grandchild says that it lives; then everything is cancelled; had it lived on it would say so again.
  const std::string script = "mkfifo go; (echo alive > started; read line < go; echo alive > survived) & wait";
  std::atomic<bool> stop = false;
  auto watcher = [&] {
    while (!std::filesystem::exists(folder / "started") && !stop) std::this_thread::yield();
    cancelled = true;
  };
  std::thread thread(watcher);
  const auto result = RunProcess({"sh", "-c", script}, {.directory = folder.path(), .cancelled = &cancelled});
  stop = true;
  thread.join();
  EXPECT_EQ(result.status().code(), absl::StatusCode::kCancelled);
  // While the reader lives this open succeeds; a killed one goes as soon as it has a CPU.
  int descriptor = 0;
  for (int i = 0; i < 30'000 && descriptor >= 0; ++i) {
    descriptor = open((folder / "go").c_str(), O_WRONLY | O_NONBLOCK);
    if (descriptor < 0) break;
    close(descriptor);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_LT(descriptor, 0);
  EXPECT_FALSE(std::filesystem::exists(folder / "survived"));
}

// one - two ------ four (merge of side) - five
//    \- side -/
class GitMirrorTest : public ::testing::Test {
 protected:
  GitMirrorTest() : repository_(folder_ / "allocator") {
    repository_.Commit("v1.0", "a", "1");
    repository_.Commit("v1.9", "a", "2");
    repository_.Branch("side", "v1.0");
    repository_.Commit("side", "b", "3");
    repository_.Switch("main");
    repository_.Merge("v1.10", "side", "a", "4");
    repository_.Commit("v2.0", "a", "5");
  }
  const std::string& hash(const std::string& name) { return repository_.hash(name); }

  TemporaryFolder folder_;
  TestRepository repository_;
};

TEST_F(GitMirrorTest, ResolvesAndDescribes) {
  const auto mirror = GitMirror::Open(repository_.path(), folder_ / "cache");
  ASSERT_TRUE(mirror.ok()) << mirror.status();
  EXPECT_EQ(*mirror->Resolve("v1.0"), hash("v1.0"));
  EXPECT_EQ(*mirror->Resolve("main"), hash("v2.0"));
  EXPECT_EQ(*mirror->Resolve("HEAD~1"), hash("v1.10"));
  EXPECT_EQ(*mirror->Resolve(hash("side").substr(0, 10)), hash("side"));
  const auto commit = mirror->Describe(hash("v1.9"));
  ASSERT_TRUE(commit.ok()) << commit.status();
  EXPECT_EQ(commit->name, "v1.9");
  EXPECT_EQ(commit->author, "Ada Author");
  EXPECT_EQ(commit->date, "2024-01-02");
  EXPECT_EQ(commit->subject, "v1.9");
  EXPECT_THAT(mirror->Resolve("v1.11").status().message(), HasSubstr("the nearest tag is v1.1"));
  EXPECT_EQ(mirror->Resolve("--help").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(GitMirrorTest, OrdersHistory) {
  const auto mirror = GitMirror::Open(repository_.path(), folder_ / "cache");
  ASSERT_TRUE(mirror.ok()) << mirror.status();
  EXPECT_THAT(*mirror->Tags("v1.*"), ElementsAre("v1.0", "v1.9", "v1.10"));
  EXPECT_THAT(*mirror->Line("", hash("v2.0"), 2), ElementsAre(hash("v1.0"), hash("v1.10"), hash("v2.0")));
  EXPECT_THAT(*mirror->Line(hash("v1.9"), hash("v2.0"), 1), ElementsAre(hash("v1.9"), hash("v1.10"), hash("v2.0")));
  EXPECT_TRUE(*mirror->IsAncestor(hash("side"), hash("v2.0")));
  EXPECT_FALSE(*mirror->IsAncestor(hash("side"), hash("v1.9")));
  const auto order = mirror->HistoryOrder({hash("v2.0"), hash("side"), hash("v1.0")});
  EXPECT_THAT(*order, ElementsAre(hash("v1.0"), hash("side"), hash("v2.0")));
  EXPECT_EQ(*mirror->Distance(hash("v1.0"), hash("v2.0")), 4u);
}

TEST_F(GitMirrorTest, LeavesTheSourceAloneAndFollowsIt) {
  const std::string before = repository_.Git({"for-each-ref"});
  auto mirror = GitMirror::Open(repository_.path(), folder_ / "cache");
  ASSERT_TRUE(mirror.ok()) << mirror.status();
  auto bisection = GitBisection::Start(*mirror, folder_ / "bisect", "good", "bad", hash("v1.0"), hash("v2.0"));
  ASSERT_TRUE(bisection.ok()) << bisection.status();
  EXPECT_EQ(repository_.Git({"for-each-ref"}), before);
  EXPECT_EQ(repository_.Git({"status", "--porcelain"}), "");
  EXPECT_FALSE(std::filesystem::exists(repository_.path() + "/.git/BISECT_LOG"));

  repository_.Commit("v2.1", "a", "6");
  mirror = GitMirror::Open(repository_.path(), folder_ / "cache");
  ASSERT_TRUE(mirror.ok()) << mirror.status();
  EXPECT_EQ(*mirror->Resolve("HEAD"), hash("v2.1"));
  // A source that is gone does not matter to what was fetched before.
  std::filesystem::rename(repository_.path() + "/.git", folder_ / "gone");
  mirror = GitMirror::Open(repository_.path(), folder_ / "cache");
  ASSERT_TRUE(mirror.ok()) << mirror.status();
  EXPECT_EQ(*mirror->Resolve("v2.1"), hash("v2.1"));
  EXPECT_THAT(mirror->warning(), HasSubstr("what was fetched before is used"));
}

TEST_F(GitMirrorTest, SaysWhatIsNoRepository) {
  const auto mirror = GitMirror::Open(folder_ / "nothing", folder_ / "cache");
  EXPECT_EQ(mirror.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(mirror.status().message(), HasSubstr("no git repository could be fetched"));
}

TEST_F(GitMirrorTest, CheckOutRemovesWhatABuildLeft) {
  const auto mirror = GitMirror::Open(repository_.path(), folder_ / "cache");
  ASSERT_TRUE(mirror.ok()) << mirror.status();
  ASSERT_TRUE(mirror->CloneInto(folder_ / "clone").ok());
  ASSERT_TRUE(CheckOut(folder_ / "clone", hash("v1.9")).ok());
  std::ofstream(folder_ / "clone/a") << "changed by the build";
  std::filesystem::create_directories(folder_ / "clone/out");
  std::ofstream(folder_ / "clone/out/object.o") << "built";
  ASSERT_TRUE(CheckOut(folder_ / "clone", hash("v1.0")).ok());
  std::ifstream file(folder_ / "clone/a");
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), "1");
  EXPECT_FALSE(std::filesystem::exists(folder_ / "clone/out"));
}

}  // namespace
}  // namespace heaptape
