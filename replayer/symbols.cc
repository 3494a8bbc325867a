#include "replayer/symbols.h"

#include <cxxabi.h>
#include <elfutils/libdwfl.h>
#include <fcntl.h>
#include <gelf.h>
#include <string.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <optional>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace heaptape {
namespace {

std::string DebugFileOf(const std::string& build_id) {
  if (build_id.size() < 3) return "";
  return absl::StrCat("/usr/lib/debug/.build-id/", build_id.substr(0, 2), "/", build_id.substr(2), ".debug");
}

std::string BuildIdOf(Dwfl_Module* module) {
  const unsigned char* bytes = nullptr;
  GElf_Addr address = 0;
  const int length = dwfl_module_build_id(module, &bytes, &address);
  if (length <= 0) return "";
  return absl::BytesToHexString({reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(length)});
}

// libdw's own way to find debug files may ask servers for them.
int FindLocalDebugFile(Dwfl_Module* module, void**, const char*, Dwarf_Addr, const char*, const char*, GElf_Word, char** found) {
  const std::string path = DebugFileOf(BuildIdOf(module));
  const int descriptor = path.empty() ? -1 : open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor >= 0) *found = strdup(path.c_str());
  return descriptor;
}

int FindNoFile(Dwfl_Module*, void**, const char*, Dwarf_Addr, char**, Elf**) { return -1; }

std::string Demangled(const char* name) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(abi::__cxa_demangle(name, nullptr, nullptr, &status), std::free);
  return status == 0 ? text.get() : name;
}

}  // namespace

class Symbols::File {
 public:
  // Null where the file is not there, is no ELF file, or bears another build id.
  static std::unique_ptr<File> Open(const std::string& path, const std::string& build_id) {
    if (!std::filesystem::is_regular_file(path)) return nullptr;
    std::unique_ptr<File> file(new File);
    dwfl_report_begin(file->dwfl_);
    file->module_ = dwfl_report_offline(file->dwfl_, path.c_str(), path.c_str(), -1);
    dwfl_report_end(file->dwfl_, nullptr, nullptr);
    if (file->module_ == nullptr || BuildIdOf(file->module_) != build_id) return nullptr;
    return file;
  }
  ~File() { dwfl_end(dwfl_); }

  std::string NameOf(std::uint64_t offset) const {
    const std::optional<GElf_Addr> address = AddressOf(offset);
    if (!address) return "";
    GElf_Off distance = 0;
    GElf_Sym symbol;
    const char* name = dwfl_module_addrinfo(module_, *address, &distance, &symbol, nullptr, nullptr, nullptr);
    if (name == nullptr) return "";
    std::string text = absl::StrCat(Demangled(name), "+0x", absl::Hex(distance));
    if (Dwfl_Line* line = dwfl_module_getsrc(module_, *address)) {
      int number = 0;
      const char* source = dwfl_lineinfo(line, nullptr, &number, nullptr, nullptr, nullptr);
      if (source != nullptr) absl::StrAppend(&text, " at ", std::filesystem::path(source).filename().string(), ":", number);
    }
    return text;
  }

 private:
  File() : dwfl_(dwfl_begin(&kCallbacks)) {}

  // A module keeps offsets in the file; symbols are by the addresses that the segments are loaded at.
  std::optional<GElf_Addr> AddressOf(std::uint64_t offset) const {
    GElf_Addr bias = 0;
    Elf* elf = dwfl_module_getelf(module_, &bias);
    std::size_t count = 0;
    if (elf == nullptr || elf_getphdrnum(elf, &count) != 0) return std::nullopt;
    for (std::size_t i = 0; i < count; ++i) {
      GElf_Phdr segment;
      if (gelf_getphdr(elf, static_cast<int>(i), &segment) == nullptr || segment.p_type != PT_LOAD) continue;
      if (offset >= segment.p_offset && offset - segment.p_offset < segment.p_filesz) {
        return bias + segment.p_vaddr + (offset - segment.p_offset);
      }
    }
    return std::nullopt;
  }

  static constexpr Dwfl_Callbacks kCallbacks = {
      .find_elf = FindNoFile, .find_debuginfo = FindLocalDebugFile, .section_address = dwfl_offline_section_address, .debuginfo_path = nullptr};

  Dwfl* dwfl_;
  Dwfl_Module* module_ = nullptr;
};

Symbols::Symbols(std::vector<std::string> folders) : folders_(std::move(folders)) {
  if (const char* path = std::getenv("PATH")) {
    for (const auto& folder : absl::StrSplit(path, ':', absl::SkipEmpty())) folders_.emplace_back(folder);
  }
  for (const char* folder : {"/usr/sbin", "/usr/bin", "/usr/local/bin", "/usr/lib/x86_64-linux-gnu", "/usr/local/lib", "/usr/lib"}) {
    folders_.emplace_back(folder);
  }
}

Symbols::~Symbols() = default;

Symbols::File* Symbols::Find(const Module& module) {
  const auto [place, is_new] = files_.try_emplace({module.name, module.build_id});
  // A name with a slash is none that a recording has: nothing outside the folders is opened.
  if (!is_new || module.build_id.empty() || module.name.empty() || module.name.find('/') != std::string::npos) return place->second.get();
  std::vector<std::string> paths;
  for (const std::string& folder : folders_) paths.push_back(absl::StrCat(folder, "/", module.name));
  if (module.build_id.find_first_not_of("0123456789abcdef") == std::string::npos) paths.push_back(DebugFileOf(module.build_id));
  for (const std::string& path : paths) {
    if (place->second == nullptr) place->second = File::Open(path, module.build_id);
  }
  return place->second.get();
}

std::string Symbols::NameOf(const Module& module, std::uint64_t offset) {
  const File* file = Find(module);
  return file == nullptr ? "" : file->NameOf(offset);
}

}  // namespace heaptape
