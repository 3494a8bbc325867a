#include "recorder/preload/cxx_operators.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <string.h>

namespace heaptape {

RealOperator real_operators[kCxxOperatorCount];

namespace {

using std::align_val_t;
using std::nothrow_t;

constexpr const char* kNames[kCxxOperatorCount] = {
    "_Znwm", "_Znam", "_ZnwmRKSt9nothrow_t", "_ZnamRKSt9nothrow_t", "_ZnwmSt11align_val_t", "_ZnamSt11align_val_t",
    "_ZnwmSt11align_val_tRKSt9nothrow_t", "_ZnamSt11align_val_tRKSt9nothrow_t", "_ZdlPv", "_ZdaPv",
    "_ZdlPvRKSt9nothrow_t", "_ZdaPvRKSt9nothrow_t", "_ZdlPvm", "_ZdaPvm", "_ZdlPvSt11align_val_t",
    "_ZdaPvSt11align_val_t", "_ZdlPvSt11align_val_tRKSt9nothrow_t", "_ZdaPvSt11align_val_tRKSt9nothrow_t",
    "_ZdlPvmSt11align_val_t", "_ZdaPvmSt11align_val_t"};

// --- the probe -----------------------------------------------------------------------------------------

constexpr std::size_t kProbeBytes = 64;
constexpr align_val_t kProbeAlignment{64};
const nothrow_t kNothrow;

// Of each operator the one that belongs to it: a checking allocator ends the program for any other.
constexpr CxxOperator kPartner[kCxxOperatorCount] = {
    kDelete, kDeleteArray, kDelete, kDeleteArray, kDeleteAligned, kDeleteArrayAligned, kDeleteAligned,
    kDeleteArrayAligned, kNew, kNewArray, kNewNothrow, kNewArrayNothrow, kNew,
    kNewArray, kNewAligned, kNewArrayAligned, kNewAlignedNothrow, kNewArrayAlignedNothrow,
    kNewAligned, kNewArrayAligned};

void* CallNew(int which, void* function) {
  if (which <= kNewArray) return reinterpret_cast<void* (*)(std::size_t)>(function)(kProbeBytes);
  if (which <= kNewArrayNothrow) {
    return reinterpret_cast<void* (*)(std::size_t, const nothrow_t*)>(function)(kProbeBytes, &kNothrow);
  }
  if (which <= kNewArrayAligned) {
    return reinterpret_cast<void* (*)(std::size_t, align_val_t)>(function)(kProbeBytes, kProbeAlignment);
  }
  return reinterpret_cast<void* (*)(std::size_t, align_val_t, const nothrow_t*)>(function)(kProbeBytes, kProbeAlignment,
                                                                                         &kNothrow);
}

void CallDelete(int which, void* function, void* pointer) {
  if (which <= kDeleteArray) {
    reinterpret_cast<void (*)(void*)>(function)(pointer);
  } else if (which <= kDeleteArrayNothrow) {
    reinterpret_cast<void (*)(void*, const nothrow_t*)>(function)(pointer, &kNothrow);
  } else if (which <= kDeleteArraySized) {
    reinterpret_cast<void (*)(void*, std::size_t)>(function)(pointer, kProbeBytes);
  } else if (which <= kDeleteArrayAligned) {
    reinterpret_cast<void (*)(void*, align_val_t)>(function)(pointer, kProbeAlignment);
  } else if (which <= kDeleteArrayAlignedNothrow) {
    reinterpret_cast<void (*)(void*, align_val_t, const nothrow_t*)>(function)(pointer, kProbeAlignment, &kNothrow);
  } else {
    reinterpret_cast<void (*)(void*, std::size_t, align_val_t)>(function)(pointer, kProbeBytes, kProbeAlignment);
  }
}

// --- the caller's own operator --------------------------------------------------------------------------

// The dynamic symbols of one loaded file, as its hash table finds them.
class Symbols {
 public:
  explicit Symbols(const dl_phdr_info& file) {
    for (int i = 0; i < file.dlpi_phnum; ++i) {
      if (file.dlpi_phdr[i].p_type != PT_DYNAMIC) continue;
      const auto* entry = reinterpret_cast<const ElfW(Dyn)*>(file.dlpi_addr + file.dlpi_phdr[i].p_vaddr);
      for (; entry->d_tag != DT_NULL; ++entry) {
        const ElfW(Addr) value = entry->d_un.d_ptr;
        const auto at = reinterpret_cast<const char*>(value < file.dlpi_addr ? value + file.dlpi_addr : value);
        if (entry->d_tag == DT_SYMTAB) symbols_ = reinterpret_cast<const ElfW(Sym)*>(at);
        if (entry->d_tag == DT_STRTAB) strings_ = at;
        if (entry->d_tag == DT_GNU_HASH) hash_ = reinterpret_cast<const std::uint32_t*>(at);
      }
    }
    base_ = file.dlpi_addr;
  }

  void* Find(const char* name) const {
    if (!symbols_ || !strings_ || !hash_) return nullptr;
    std::uint32_t hash = 5381;
    for (const char* at = name; *at; ++at) hash = hash * 33 + static_cast<unsigned char>(*at);
    const std::uint32_t buckets = hash_[0], first = hash_[1], bloom_words = hash_[2];
    const std::uint32_t* bucket = hash_ + 4 + bloom_words * (sizeof(ElfW(Addr)) / 4);
    const std::uint32_t* chain = bucket + buckets;
    if (buckets == 0) return nullptr;
    std::uint32_t index = bucket[hash % buckets];
    if (index < first) return nullptr;
    for (;; ++index) {
      const std::uint32_t entry = chain[index - first];
      const ElfW(Sym)& symbol = symbols_[index];
      if ((entry | 1) == (hash | 1) && symbol.st_shndx != SHN_UNDEF && strcmp(strings_ + symbol.st_name, name) == 0) {
        return reinterpret_cast<void*>(base_ + symbol.st_value);
      }
      if (entry & 1) return nullptr;
    }
  }

 private:
  ElfW(Addr) base_ = 0;
  const ElfW(Sym)* symbols_ = nullptr;
  const char* strings_ = nullptr;
  const std::uint32_t* hash_ = nullptr;
};

struct Search {
  const char* name;
  std::uint64_t caller;
  void* own;      // of the file that calls
  void* library;  // of a C++ library
};

int SearchFile(dl_phdr_info* file, std::size_t, void* argument) {
  auto* search = static_cast<Search*>(argument);
  bool calls = false;
  for (int i = 0; i < file->dlpi_phnum; ++i) {
    const auto& segment = file->dlpi_phdr[i];
    const std::uint64_t start = file->dlpi_addr + segment.p_vaddr;
    calls |= segment.p_type == PT_LOAD && start <= search->caller && search->caller < start + segment.p_memsz;
  }
  if (calls) search->own = Symbols(*file).Find(search->name);
  const char* const slash = strrchr(file->dlpi_name, '/');
  const char* const base = slash ? slash + 1 : file->dlpi_name;
  const bool is_library = strncmp(base, "libstdc++.so", 12) == 0 || strncmp(base, "libc++", 6) == 0;
  if (is_library && !search->library) search->library = Symbols(*file).Find(search->name);
  return search->own != nullptr;
}

}  // namespace

void FindOperators(const void* real_malloc) {
  Dl_info allocator = {};
  dladdr(real_malloc, &allocator);
  for (int i = 0; i < kCxxOperatorCount; ++i) {
    void* const found = dlsym(RTLD_NEXT, kNames[i]);
    Dl_info its = {};
    const bool own = found && dladdr(found, &its) && its.dli_fbase == allocator.dli_fbase;
    real_operators[i] = {found, own};
  }
}

void ProbeOperators() {
  const std::uint32_t generation = thread.generation;
  thread.generation = 0;
  thread.probing = true;
  for (int i = 0; i < kCxxOperatorCount; ++i) {
    const int partner = kPartner[i];
    if (!real_operators[i].record || !real_operators[partner].function) continue;
    const bool is_delete = i >= kDelete;
    const int maker = is_delete ? partner : i;
    const int ender = is_delete ? i : partner;
    thread.probe_hit = false;
    void* block = CallNew(maker, real_operators[maker].function);
    if (!is_delete && thread.probe_hit) real_operators[i].record = false;
    thread.probe_hit = false;
    if (block) CallDelete(ender, real_operators[ender].function, block);
    if (is_delete && thread.probe_hit) real_operators[i].record = false;
  }
  thread.probing = false;
  thread.generation = generation;
}

void* OperatorOfCaller(CxxOperator which, const void* caller) {
  Search search = {kNames[which], reinterpret_cast<std::uint64_t>(caller), nullptr, nullptr};
  dl_iterate_phdr(SearchFile, &search);
  return search.own ? search.own : search.library;
}

}  // namespace heaptape
