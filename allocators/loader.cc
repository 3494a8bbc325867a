#include "allocators/loader.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <stdio.h>
#include <string.h>

#include <cstdint>

namespace heaptape {
namespace {

class Library {
 public:
  Library(void* handle, const char* prefix) : handle_(handle), prefix_(prefix) {
    dlinfo(handle, RTLD_DI_LINKMAP, &map_);
  }

  const link_map* map() const { return map_; }

  // The function of this name if this very library defines it. (dlsym also looks into the libraries it
  // needs, where the C library's malloc always is.)
  template <typename Function>
  bool Find(const char* name, Function*& function) const {
    char full[96];
    snprintf(full, sizeof(full), "%s%s", prefix_, name);
    function = reinterpret_cast<Function*>(FindOwn(full));
    return function != nullptr;
  }

  void* FindOwn(const char* name) const {
    void* symbol = dlsym(handle_, name);
    Dl_info info;
    link_map* owner = nullptr;
    if (symbol == nullptr || dladdr1(symbol, &info, reinterpret_cast<void**>(&owner), RTLD_DL_LINKMAP) == 0) return nullptr;
    return owner == map_ ? symbol : nullptr;
  }

 private:
  void* handle_;
  const char* prefix_;
  link_map* map_ = nullptr;
};

struct BuildIdSearch {
  ElfW(Addr) base;
  char* text;
  std::size_t bytes;
};

int FindBuildId(dl_phdr_info* info, std::size_t, void* data) {
  auto& search = *static_cast<BuildIdSearch*>(data);
  if (info->dlpi_addr != search.base) return 0;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr)& segment = info->dlpi_phdr[i];
    if (segment.p_type != PT_NOTE) continue;
    const char* at = reinterpret_cast<const char*>(info->dlpi_addr + segment.p_vaddr);
    const char* end = at + segment.p_memsz;
    while (at + sizeof(ElfW(Nhdr)) <= end) {
      const auto* note = reinterpret_cast<const ElfW(Nhdr)*>(at);
      const char* name = at + sizeof(*note);
      const char* value = name + ((note->n_namesz + 3) & ~3u);
      if (note->n_type == NT_GNU_BUILD_ID && note->n_namesz == 4 && memcmp(name, "GNU", 4) == 0) {
        for (std::uint32_t k = 0; k < note->n_descsz && 2 * k + 2 < search.bytes; ++k) {
          snprintf(search.text + 2 * k, 3, "%02x", static_cast<unsigned char>(value[k]));
        }
        return 1;
      }
      at = value + ((note->n_descsz + 3) & ~3u);
    }
  }
  return 1;
}

}  // namespace

bool LoadAllocator(const char* library_path, const char* prefix, LoadedAllocator& result, char* error,
                   std::size_t error_bytes) {
  const bool c_library = *library_path == 0;
  result.handle = c_library ? dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD) : dlopen(library_path, RTLD_NOW | RTLD_LOCAL);
  if (result.handle == nullptr) {
    const char* why = dlerror();
    snprintf(error, error_bytes, "cannot load %s: %s", c_library ? "libc.so.6" : library_path, why ? why : "unknown error");
    return false;
  }
  const Library library(result.handle, prefix);
  AllocatorFunctions& f = result.functions;
  if (library.map() == nullptr || !library.Find("malloc", f.malloc) || !library.Find("free", f.free)) {
    snprintf(error, error_bytes, "%s is not an allocator: it defines no %smalloc and %sfree", library_path, prefix, prefix);
    return false;
  }
  library.Find("calloc", f.calloc);
  library.Find("realloc", f.realloc);
  library.Find("posix_memalign", f.posix_memalign);
  library.Find("aligned_alloc", f.aligned_alloc);
  library.Find("memalign", f.memalign);
  library.Find("valloc", f.valloc);
  library.Find("pvalloc", f.pvalloc);
  library.Find("malloc_usable_size", f.malloc_usable_size);
  library.Find("malloc_trim", f.malloc_trim);
  library.Find("mallopt", f.mallopt);
  snprintf(result.library_path, sizeof(result.library_path), "%s", library.map()->l_name);
  BuildIdSearch search{library.map()->l_addr, result.build_id, sizeof(result.build_id)};
  dl_iterate_phdr(FindBuildId, &search);
  return true;
}

}  // namespace heaptape
