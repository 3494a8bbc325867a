// Which files are replaced, and that what appears meanwhile is not.

#include "traces/output_file.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "traces/trace_writer.h"

namespace heaptape {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class OutputFileTest : public testing::Test {
 protected:
  OutputFileTest() {
    char name[] = "/tmp/heaptape-output-XXXXXX";
    folder_ = mkdtemp(name);
  }
  ~OutputFileTest() override { fs::remove_all(folder_); }

  std::string Path(const std::string& name) const { return folder_ + "/" + name; }
  static void Put(const std::string& path, const std::string& text) { std::ofstream(path) << text; }
  static std::string Text(const std::string& path) {
    std::ifstream file(path);
    return std::string(std::istreambuf_iterator<char>(file), {});
  }
  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_)) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }

  // One of everything that is no regular file, with what the refusal calls it.
  std::vector<std::pair<std::string, std::string>> OtherThings() {
    fs::create_directory(Path("folder"));
    Put(Path("target"), "kept");
    fs::create_symlink("target", Path("link"));
    fs::create_symlink("nowhere", Path("dangling"));
    EXPECT_EQ(mkfifo(Path("fifo").c_str(), 0600), 0);
    sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = ""};
    std::strncpy(address.sun_path, Path("socket").c_str(), sizeof(address.sun_path) - 1);
    const int descriptor = socket(AF_UNIX, SOCK_STREAM, 0);
    EXPECT_EQ(bind(descriptor, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    close(descriptor);
    std::vector<std::pair<std::string, std::string>> things = {{Path("folder"), "a folder"},          {Path("link"), "a symbolic link"},
                                                               {Path("dangling"), "a symbolic link"}, {Path("fifo"), "a FIFO"},
                                                               {Path("socket"), "a socket"}};
    // Where no device can be made the system's own is refused as well.
    const bool made = mknod(Path("null").c_str(), S_IFCHR | 0666, makedev(1, 3)) == 0;
    things.emplace_back(made ? Path("null") : "/dev/full", "a device");
    return things;
  }

  std::string folder_;
};

TEST_F(OutputFileTest, ANewFileHoldsTheTextAndNothingElseIsLeft) {
  EXPECT_EQ(WriteOutput(Path("a"), "text", false), absl::OkStatus());
  EXPECT_EQ(Text(Path("a")), "text");
  EXPECT_EQ(Names(), std::vector<std::string>{"a"});
}

TEST_F(OutputFileTest, ARegularFileIsReplacedOnlyWhereAsked) {
  Put(Path("a"), "old");
  const absl::Status refused = WriteOutput(Path("a"), "new", false);
  EXPECT_EQ(refused.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(std::string(refused.message()), Path("a") + ": exists already; give --force to replace it");
  EXPECT_EQ(Text(Path("a")), "old");
  EXPECT_EQ(WriteOutput(Path("a"), "new", true), absl::OkStatus());
  EXPECT_EQ(Text(Path("a")), "new");
  EXPECT_EQ(Names(), std::vector<std::string>{"a"});
}

TEST_F(OutputFileTest, NothingElseIsEverReplaced) {
  for (const auto& [path, kind] : OtherThings()) {
    struct stat before, after;
    ASSERT_EQ(lstat(path.c_str(), &before), 0);
    for (const bool replace : {false, true}) {
      const std::string refusal = path + ": is " + kind + ", which is never replaced; choose another name";
      EXPECT_EQ(std::string(CheckOutput(path, replace).message()), refusal);
      EXPECT_EQ(std::string(WriteOutput(path, "new", replace).message()), refusal);
      EXPECT_EQ(std::string(TraceWriter::Create(path, {}, {.replace = replace}).status().message()), refusal);
      Put(Path("part"), "new");
      EXPECT_FALSE(PutInPlace(Path("part"), path, replace).ok());
      EXPECT_EQ(Text(Path("part")), "new");
    }
    ASSERT_EQ(lstat(path.c_str(), &after), 0);
    EXPECT_EQ(before.st_ino, after.st_ino) << path;
    EXPECT_EQ(before.st_mode, after.st_mode) << path;
  }
  EXPECT_EQ(Text(Path("target")), "kept");
}

TEST_F(OutputFileTest, WhatAppearsMeanwhileStays) {
  Put(Path("a.part"), "new");
  ASSERT_EQ(CheckOutput(Path("a"), false), absl::OkStatus());
  Put(Path("a"), "theirs");
  const absl::Status status = PutInPlace(Path("a.part"), Path("a"), false);
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(status.message()), HasSubstr("what belongs there is whole in " + Path("a.part")));
  EXPECT_EQ(Text(Path("a")), "theirs");
  EXPECT_EQ(Text(Path("a.part")), "new");
}

TEST_F(OutputFileTest, ATraceWhoseNameIsTakenMeanwhileIsWholeUnderItsOther) {
  auto writer = TraceWriter::Create(Path("a.tape"), {.program = "test"});
  ASSERT_TRUE(writer.ok()) << writer.status();
  Put(Path("a.tape"), "theirs");
  EXPECT_EQ((*writer)->Finish().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(Text(Path("a.tape")), "theirs");
  EXPECT_GT(fs::file_size(Path("a.tape.part")), 100u);
}

TEST_F(OutputFileTest, ALinkThatWaitsUnderTheUnfinishedNameIsNotFollowed) {
  Put(Path("victim"), "kept");
  fs::create_symlink("victim", Path("a") + "." + std::to_string(getpid()) + ".part");
  fs::create_symlink("victim", Path("t.tape.part"));
  EXPECT_FALSE(WriteOutput(Path("a"), "new", true).ok());
  EXPECT_FALSE(TraceWriter::Create(Path("t.tape"), {}, {.replace = true}).ok());
  EXPECT_EQ(Text(Path("victim")), "kept");
}

TEST_F(OutputFileTest, AFileThatIsNotFinishedLeavesNothing) {
  {
    absl::StatusOr<OutputFile> file = OutputFile::Create(Path("a"), false);
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_TRUE(file->Write("half"));
  }
  EXPECT_TRUE(Names().empty());
}

TEST_F(OutputFileTest, AFullDiskIsTold) {
  // A device of the test's own would do, but only root could make one; nothing is replaced here.
  const int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
  ASSERT_GE(full, 0);
  const std::string path = "/dev/fd/" + std::to_string(full);
  EXPECT_THAT(std::string(WriteOutput(path, "text", false).message()), HasSubstr("No space left on device"));
  close(full);
}

TEST_F(OutputFileTest, AnOpenDescriptorIsWrittenTo) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  for (const char* const folder : {"/dev/fd/", "/proc/self/fd/"}) {
    const std::string path = folder + std::to_string(ends[1]);
    EXPECT_TRUE(IsOpenDescriptor(path));
    EXPECT_EQ(WriteOutput(path, "text", false), absl::OkStatus());
    char buffer[16];
    EXPECT_EQ(read(ends[0], buffer, sizeof(buffer)), 4);
  }
  close(ends[0]);
  close(ends[1]);
  EXPECT_FALSE(IsOpenDescriptor("/dev/fd/" + std::to_string(ends[1])));
  EXPECT_FALSE(IsOpenDescriptor("/dev/null"));
  EXPECT_FALSE(IsOpenDescriptor("/dev/fd/x"));
}

TEST_F(OutputFileTest, AFolderThatIsMissingIsToldBeforeAnyWork) {
  EXPECT_EQ(std::string(CheckOutput(Path("no/such/a"), true).message()),
            Path("no/such/a") + ": cannot be written (No such file or directory); choose another place");
}

}  // namespace
}  // namespace heaptape
