// Names of code in this very process, as the writer asks for them of the recorded one.

#include "recorder/modules.h"

#include <fcntl.h>
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <string>
#include <vector>

namespace heaptape {
namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;

std::string NameOf(Modules& modules, std::uint64_t address, std::uint64_t now_ns) {
  const std::vector<StackFrame> frames = modules.Resolve(std::vector{address}, now_ns);
  return modules.seen().at(frames.at(0).module).name;
}

class Plugin {
 public:
  Plugin() : library_(dlopen(HEAPTAPE_PLUGIN, RTLD_NOW)), code_(reinterpret_cast<std::uint64_t>(dlsym(library_, "Allocate"))) {}
  ~Plugin() { dlclose(library_); }
  std::uint64_t code() const { return code_; }

 private:
  void* library_;
  std::uint64_t code_;
};

TEST(Modules, ALibraryThatCameAMomentAgoIsNamed) {
  Modules modules(open("/proc/self/maps", O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(NameOf(modules, reinterpret_cast<std::uint64_t>(&NameOf), 1 * kSecond), "modules_test");
  const Plugin plugin;
  EXPECT_EQ(NameOf(modules, plugin.code(), 1 * kSecond + 1), "plugin.so");
}

TEST(Modules, ALibraryThatIsGoneKeepsItsNameWhereItWasSeen) {
  Modules modules(open("/proc/self/maps", O_RDONLY | O_CLOEXEC));
  std::uint64_t code;
  {
    const Plugin plugin;
    code = plugin.code();
    EXPECT_EQ(NameOf(modules, code, 1 * kSecond), "plugin.so");
  }
  for (std::uint64_t second = 2; second < 10; ++second) EXPECT_EQ(NameOf(modules, code, second * kSecond), "plugin.so");
  EXPECT_EQ(NameOf(modules, 4096, 10 * kSecond), "[unknown]");
}

TEST(Modules, ALibraryThatGoesWithManyMappingsKeepsItsName) {
  Modules modules(open("/proc/self/maps", O_RDONLY | O_CLOEXEC));
  const std::size_t page = static_cast<std::size_t>(getpagesize());
  constexpr std::size_t kPages = 6000;
  char* pages = static_cast<char*>(mmap(nullptr, kPages * page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(pages, MAP_FAILED);
  for (std::size_t i = 0; i < kPages; i += 2) ASSERT_EQ(mprotect(pages + i * page, page, PROT_NONE), 0);
  std::uint64_t code;
  {
    const Plugin plugin;
    code = plugin.code();
    EXPECT_EQ(NameOf(modules, code, 1 * kSecond), "plugin.so");
  }
  EXPECT_EQ(NameOf(modules, code, 2 * kSecond), "plugin.so");
  munmap(pages, kPages * page);
  for (std::uint64_t second = 3; second < 5; ++second) EXPECT_EQ(NameOf(modules, code, second * kSecond), "plugin.so");
}

// A program whose code comes and goes all the time is not held up by a reading for each of its stacks.
TEST(Modules, ReadingsForWhatStaysUnknownAreFew) {
  Modules modules(open("/proc/self/maps", O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(NameOf(modules, 4096, 1 * kSecond), "[unknown]");
  const auto cpu_ns = [] {
    timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * kSecond + static_cast<std::uint64_t>(now.tv_nsec);
  };
  const std::uint64_t before = cpu_ns();
  std::uint64_t asked = 0;
  while (cpu_ns() - before < kSecond) {
    NameOf(modules, 4096, 1 * kSecond + 1);
    ++asked;
  }
  // Once the quarter of a second is spent no reading is between two answers.
  const Plugin plugin;
  EXPECT_EQ(NameOf(modules, plugin.code(), 1 * kSecond + 2), "[unknown]") << asked;
  EXPECT_EQ(NameOf(modules, plugin.code(), 2 * kSecond), "plugin.so");
}

}  // namespace
}  // namespace heaptape
