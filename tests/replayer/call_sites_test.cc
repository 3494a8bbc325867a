// Names of places in a program, found by its build id; and which frame of a stack is the one that asked.

#include "replayer/call_sites.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <string.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/escaping.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "replayer/symbols.h"

namespace heaptape {

// Its name in the symbol table is not that in the source.
__attribute__((noinline)) int PlaceWithAName(int value) {
  asm volatile("");
  return value + 1;
}

namespace {

const std::filesystem::path kSelf = std::filesystem::read_symlink("/proc/self/exe");

std::string OwnBuildId() {
  std::string build_id;
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* result) {
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const ElfW(Phdr)& header = info->dlpi_phdr[i];
          if (header.p_type != PT_NOTE) continue;
          const char* note = reinterpret_cast<const char*>(info->dlpi_addr + header.p_vaddr);
          for (const char* end = note + header.p_memsz; note < end;) {
            ElfW(Nhdr) head;
            memcpy(&head, note, sizeof(head));
            const char* bytes = note + sizeof(head) + (head.n_namesz + 3) / 4 * 4;
            if (head.n_type == NT_GNU_BUILD_ID) *static_cast<std::string*>(result) = absl::BytesToHexString({bytes, head.n_descsz});
            note = bytes + (head.n_descsz + 3) / 4 * 4;
          }
        }
        return 1;  // the program itself is the first
      },
      &build_id);
  return build_id;
}

// As the kernel tells of mappings: the offset in the file that lies at the address.
std::uint64_t OffsetInFile(const void* address) {
  const auto place = reinterpret_cast<std::uint64_t>(address);
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    unsigned long from = 0, to = 0, offset = 0;
    char access[5];
    if (std::sscanf(line.c_str(), "%lx-%lx %4s %lx", &from, &to, access, &offset) != 4) continue;
    if (place >= from && place < to) return place - from + offset;
  }
  ADD_FAILURE() << "not mapped";
  return 0;
}

TEST(SymbolsTest, NamesThePlaceInAFileWithTheRecordedBuildId) {
  ASSERT_NE(OwnBuildId(), "");
  EXPECT_EQ(PlaceWithAName(1), 2);
  Symbols symbols({kSelf.parent_path()});
  const std::uint64_t offset = OffsetInFile(reinterpret_cast<const void*>(&PlaceWithAName));
  EXPECT_THAT(symbols.NameOf({kSelf.filename(), OwnBuildId()}, offset + 1), testing::StartsWith("heaptape::PlaceWithAName(int)+0x1"));
}

TEST(SymbolsTest, NothingIsSaidOfAnotherBuildOrPlace) {
  Symbols symbols({kSelf.parent_path()});
  const std::uint64_t offset = OffsetInFile(reinterpret_cast<const void*>(&PlaceWithAName));
  EXPECT_EQ(symbols.NameOf({kSelf.filename(), "00112233"}, offset), "");
  EXPECT_EQ(symbols.NameOf({kSelf.filename(), ""}, offset), "");
  EXPECT_EQ(symbols.NameOf({"no-such-program", OwnBuildId()}, offset), "");
  EXPECT_EQ(symbols.NameOf({kSelf.string(), OwnBuildId()}, offset), "") << "a path is no base name";
  EXPECT_EQ(symbols.NameOf({kSelf.filename(), OwnBuildId()}, ~std::uint64_t{0}), "");
}

TEST(AllocationWrapperTest, TheOneThatAskedIsBehindThem) {
  for (const char* name : {"tor_malloc_+0x1b", "operator new(unsigned long)+0x1c", "xrealloc+0x2", "tor_strdup_+0x9",
                           "std::vector<int, std::allocator<int> >::reserve(unsigned long)+0x40", "PyObject_Malloc+0x1"}) {
    EXPECT_TRUE(IsAllocationWrapper(name, "program")) << name;
  }
  EXPECT_TRUE(IsAllocationWrapper("fopen+0x10", "libc.so.6"));
  for (const char* name : {"buf_add+0x2f", "", "main+0x10 at malloc_user.c:12"}) EXPECT_FALSE(IsAllocationWrapper(name, "program")) << name;
}

}  // namespace
}  // namespace heaptape
