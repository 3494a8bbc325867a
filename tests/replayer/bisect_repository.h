// A small git history that a test makes in a folder of its own.

#ifndef HEAPTAPE_TESTS_REPLAYER_BISECT_REPOSITORY_H_
#define HEAPTAPE_TESTS_REPLAYER_BISECT_REPOSITORY_H_

#include <map>
#include <string>
#include <vector>

namespace heaptape {

// Removed with everything in it when destroyed.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Every commit is a day after the one before and tagged with its own name.
class TestRepository {
 public:
  explicit TestRepository(const std::string& path);

  // Runs git in it; fails the test unless it exits with `status`. Returns stdout without the last newline.
  std::string Git(const std::vector<std::string>& arguments, int status = 0);
  // Writes `file` and commits it as `name`. Returns the hash.
  std::string Commit(const std::string& name, const std::string& file, const std::string& text);
  void Branch(const std::string& branch, const std::string& at);
  void Switch(const std::string& branch);
  // Merges `branch` into the current one; the merge's tree takes `text` as `file`.
  std::string Merge(const std::string& name, const std::string& branch, const std::string& file, const std::string& text);

  const std::string& path() const { return path_; }
  const std::string& hash(const std::string& name) const { return hashes_.at(name); }

 private:
  std::string Tagged(const std::string& name);

  std::string path_;
  int day_ = 0;
  std::map<std::string, std::string> hashes_;
};

}  // namespace heaptape

#endif  // HEAPTAPE_TESTS_REPLAYER_BISECT_REPOSITORY_H_
