#include "tests/replayer/bisect_repository.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_format.h"
#include "gtest/gtest.h"
#include "allocators/git.h"
#include "allocators/process.h"

namespace heaptape {

TemporaryFolder::TemporaryFolder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "heaptape-bisect-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) std::abort();
  path_ = pattern;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code error;
  std::filesystem::remove_all(path_, error);
}

TestRepository::TestRepository(const std::string& path) : path_(path) {
  std::filesystem::create_directories(path);
  Git({"init", "-q", "-b", "main"});
}

std::string TestRepository::Git(const std::vector<std::string>& arguments, int status) {
  std::vector<std::string> command = {"git", "-C", path_, "-c", "commit.gpgSign=false", "-c", "tag.gpgSign=false",
                                      "-c", "core.hooksPath=/dev/null"};
  command.insert(command.end(), arguments.begin(), arguments.end());
  const std::string date = absl::StrFormat("2024-01-%02d 12:00:00 +0000", 1 + day_);
  const auto result = RunProcess(command, {.environment = {{"GIT_AUTHOR_DATE", date},
                                                           {"GIT_COMMITTER_DATE", date},
                                                           {"GIT_AUTHOR_NAME", "Ada Author"},
                                                           {"GIT_AUTHOR_EMAIL", "ada@example.org"},
                                                           {"GIT_COMMITTER_NAME", "Ada Author"},
                                                           {"GIT_COMMITTER_EMAIL", "ada@example.org"}},
                                           .without = GitVariables()});
  EXPECT_TRUE(result.ok()) << result.status();
  if (!result.ok()) return "";
  EXPECT_EQ(result->exit_status, status) << result->errors;
  std::string output = result->output;
  while (!output.empty() && output.back() == '\n') output.pop_back();
  return output;
}

std::string TestRepository::Tagged(const std::string& name) {
  Git({"tag", name});
  ++day_;
  return hashes_[name] = Git({"rev-parse", "HEAD"});
}

std::string TestRepository::Commit(const std::string& name, const std::string& file, const std::string& text) {
  std::ofstream(path_ + "/" + file) << text;
  Git({"add", file});
  Git({"commit", "-q", "--allow-empty", "-m", name});
  return Tagged(name);
}

void TestRepository::Branch(const std::string& branch, const std::string& at) { Git({"checkout", "-q", "-b", branch, at}); }

void TestRepository::Switch(const std::string& branch) { Git({"checkout", "-q", branch}); }

std::string TestRepository::Merge(const std::string& name, const std::string& branch, const std::string& file,
                                  const std::string& text) {
  Git({"merge", "-q", "--no-ff", "--no-commit", "-X", "theirs", branch});
  return Commit(name, file, text);
}

}  // namespace heaptape
