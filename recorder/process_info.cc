#include "recorder/process_info.h"

#include <elf.h>
#include <gnu/libc-version.h>
#include <link.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace heaptape {
namespace {

std::string BaseName(const std::string& path) { return path.substr(path.rfind('/') + 1); }

// What follows ".so." in the file's real name: "2.0" for /usr/lib/x86_64-linux-gnu/libmimalloc.so.2.0.
std::string LibraryVersion(const std::string& path) {
  std::error_code error;
  const std::filesystem::path real = std::filesystem::canonical(path, error);
  const std::string name = BaseName(error ? path : real.string());
  const std::size_t at = name.find(".so.");
  return at == std::string::npos ? "" : name.substr(at + 4);
}

HugePages ReadHugePages() {
  std::ifstream file("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string text;
  std::getline(file, text);
  if (absl::StrContains(text, "[always]")) return HugePages::kAlways;
  if (absl::StrContains(text, "[madvise]")) return HugePages::kMadvise;
  if (absl::StrContains(text, "[never]")) return HugePages::kNever;
  return HugePages::kUnknown;
}

}  // namespace

std::string BuildId(const std::string& path) {
  // The name comes from the program: opening a FIFO would wait for good.
  struct stat info;
  if (stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return "";
  std::ifstream file(path, std::ios::binary);
  ElfW(Ehdr) header;
  if (!file.read(reinterpret_cast<char*>(&header), sizeof(header))) return "";
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_phentsize != sizeof(ElfW(Phdr))) return "";
  for (int i = 0; i < header.e_phnum; ++i) {
    ElfW(Phdr) segment;
    file.seekg(static_cast<std::streamoff>(header.e_phoff + i * sizeof(segment)));
    if (!file.read(reinterpret_cast<char*>(&segment), sizeof(segment))) return "";
    if (segment.p_type != PT_NOTE || segment.p_filesz > 4096) continue;
    std::string notes(segment.p_filesz, '\0');
    file.seekg(static_cast<std::streamoff>(segment.p_offset));
    if (!file.read(notes.data(), static_cast<std::streamsize>(notes.size()))) return "";
    for (std::size_t at = 0; at + sizeof(ElfW(Nhdr)) <= notes.size();) {
      ElfW(Nhdr) note;
      std::memcpy(&note, notes.data() + at, sizeof(note));
      const std::size_t name = at + sizeof(note);
      const std::size_t content = name + ((std::size_t{note.n_namesz} + 3) & ~std::size_t{3});
      const std::size_t end = content + ((std::size_t{note.n_descsz} + 3) & ~std::size_t{3});
      if (end > notes.size() || end < at) break;
      if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 && notes.compare(name, 3, "GNU") == 0) {
        return absl::BytesToHexString(notes.substr(content, note.n_descsz));
      }
      at = end;
    }
  }
  return "";
}

std::string ProgramName() {
  std::error_code error;
  const std::string path = std::filesystem::read_symlink("/proc/self/exe", error).string();
  return error ? "the program" : BaseName(path);
}

std::string AllocatorName(const std::string& path) {
  std::string name = BaseName(path);
  if (absl::StartsWith(name, "libc.so") || absl::StartsWith(name, "libc-")) return "glibc";
  if (absl::StartsWith(name, "lib")) name = name.substr(3);
  return name.substr(0, name.find_first_of(".-"));
}

TraceInfo DescribeProcess(const std::string& allocator_path, const RecorderOptions& options) {
  TraceInfo info;
  if (options.privacy_level < 2) info.program = ProgramName();
  info.c_library = absl::StrCat("glibc ", gnu_get_libc_version());
  info.allocator = AllocatorName(allocator_path);
  info.allocator_version = info.allocator == "glibc" ? gnu_get_libc_version() : LibraryVersion(allocator_path);
  info.allocator_path = BaseName(allocator_path);
  info.allocator_build_id = BuildId(allocator_path);
  utsname system;
  if (uname(&system) == 0) info.kernel = system.release;
  info.heaptape_version = HEAPTAPE_VERSION;
  struct sysinfo machine;
  if (sysinfo(&machine) == 0) info.memory_bytes = std::uint64_t{machine.totalram} * machine.mem_unit;
  const auto now = static_cast<std::uint64_t>(time(nullptr));
  if (options.privacy_level == 0) info.start_unix_seconds = now;
  if (options.privacy_level == 1) info.start_unix_seconds = now / 3600 * 3600;
  info.time_resolution_ns = options.time_resolution_ns;
  cpu_set_t cpus;
  if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0) info.cpu_count = static_cast<std::uint32_t>(CPU_COUNT(&cpus));
  info.page_bytes = static_cast<std::uint32_t>(sysconf(_SC_PAGESIZE));
  info.huge_pages = ReadHugePages();
  info.privacy_level = static_cast<std::uint8_t>(options.privacy_level);
  info.stack_sample_bytes = options.stack_bytes;
  return info;
}

}  // namespace heaptape
