#include "recorder/preload/environment.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "recorder/preload/system.h"

extern "C" char** environ;

namespace heaptape {
namespace {

bool StartsWith(const char* text, const char* prefix) {
  while (*prefix) {
    if (*text++ != *prefix++) return false;
  }
  return true;
}

std::uint64_t ParseNumber(const char** text) {
  std::uint64_t value = 0;
  for (; **text >= '0' && **text <= '9'; ++*text) value = value * 10 + static_cast<std::uint64_t>(**text - '0');
  return value;
}

struct OptionName {
  const char* name;
  std::size_t offset;
};

constexpr OptionName kOptionNames[] = {
#define HEAPTAPE_OPTION(name) {#name "=", offsetof(RecorderOptions, name)},
    HEAPTAPE_RECORDER_OPTIONS(HEAPTAPE_OPTION)
#undef HEAPTAPE_OPTION
};

// Leaves only the items of a list of libraries that are not ours. Returns whether any is left.
bool DropOwn(char* list, const char* own_path) {
  char* kept = list;
  for (char* item = list; *item;) {
    const std::size_t length = strcspn(item, ": ");
    char* const following = item[length] ? item + length + 1 : item + length;
    const char* base = item;
    for (std::size_t i = 0; i < length; ++i) {
      if (item[i] == '/') base = item + i + 1;
    }
    const bool own = (strlen(own_path) == length && memcmp(item, own_path, length) == 0) || StartsWith(base, "libheaptape");
    if (!own && length > 0) {
      if (kept != list) *kept++ = ':';
      memmove(kept, item, length);
      kept += length;
    }
    item = following;
  }
  *kept = '\0';
  return kept != list;
}

constexpr char kPreload[] = "LD_PRELOAD=";
constexpr char kOwnPrefix[] = "HEAPTAPE_";
constexpr char kOutput[] = "HEAPTAPE_OUTPUT=";
constexpr char kFamily[] = "HEAPTAPE_FAMILY=";
static_assert(sizeof(kOutput) == sizeof(kFamily));
constexpr char kReport[] = "HEAPTAPE_REPORT=";

// `environ` becomes a copy of the array without the entries that are emptied.
template <typename IsGone>
void Hide(char** environment, IsGone is_gone) {
  std::size_t count = 0;
  bool any = false;
  for (; environment[count]; ++count) any |= is_gone(environment[count]);
  if (!any) return;
  const long memory = SystemCall(SYS_mmap, 0, static_cast<long>((count + 1) * sizeof(char*)), PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  char** const copy = memory < 0 && memory > -4096 ? nullptr : reinterpret_cast<char**>(memory);
  std::size_t kept = 0;
  for (std::size_t i = 0; i < count; ++i) {
    if (is_gone(environment[i])) {
      *(strchr(environment[i], '=') + 1) = '\0';
    } else if (copy) {
      copy[kept++] = environment[i];
    }
  }
  if (copy && environ == environment) environ = copy;
}

}  // namespace

const char* FindVariable(char** environment, const char* name) {
  for (char** entry = environment; *entry; ++entry) {
    if (StartsWith(*entry, name) && (*entry)[strlen(name)]) return *entry + strlen(name);
  }
  return nullptr;
}

void ParseOptions(const char* text, RecorderOptions* options) {
  while (text && *text) {
    for (const OptionName& option : kOptionNames) {
      if (!StartsWith(text, option.name)) continue;
      const char* digits = text + strlen(option.name);
      *reinterpret_cast<std::uint64_t*>(reinterpret_cast<char*>(options) + option.offset) = ParseNumber(&digits);
    }
    while (*text && *text != ';') ++text;
    if (*text) ++text;
  }
}

const char* BaseName(const char* path) {
  const char* base = path;
  for (; *path; ++path) {
    if (*path == '/') base = path + 1;
  }
  return base;
}

bool IsMeant(char** environment, int argc, char** argv) {
  if (const char* program = FindVariable(environment, "HEAPTAPE_PROGRAM=")) {
    char path[4096];
    const long length = SystemCall(SYS_readlink, reinterpret_cast<long>("/proc/self/exe"), reinterpret_cast<long>(path),
                                   sizeof(path) - 1);
    if (length <= 0) return false;
    path[length] = '\0';
    if (strcmp(BaseName(path), BaseName(program)) != 0) return false;
  }
  if (const char* unwanted = FindVariable(environment, "HEAPTAPE_UNLESS_ARGUMENT=")) {
    for (int i = 1; i < argc; ++i) {
      if (strcmp(argv[i], unwanted) == 0) return false;
    }
  }
  return true;
}

int FindReport(const char* text) {
  if (!text) return -1;
  const std::uint64_t descriptor = ParseNumber(&text);
  const std::uint64_t device = *text == ':' ? ParseNumber(&++text) : 0;
  const std::uint64_t inode = *text == ':' ? ParseNumber(&++text) : 0;
  struct stat file;
  if (descriptor > 1u << 20 || fstat(static_cast<int>(descriptor), &file) != 0) return -1;
  return file.st_dev == device && file.st_ino == inode ? static_cast<int>(descriptor) : -1;
}

void CleanEnvironment(char** environment, const char* own_path) {
  bool any_left = true;
  for (char** entry = environment; *entry; ++entry) {
    if (!StartsWith(*entry, kPreload)) continue;
    any_left = DropOwn(*entry + strlen(kPreload), own_path);
    break;
  }
  Hide(environment, [any_left](const char* entry) {
    return StartsWith(entry, kOwnPrefix) || (!any_left && StartsWith(entry, kPreload));
  });
}

void KeepForChildren(char** environment) {
  for (char** entry = environment; *entry; ++entry) {
    if (StartsWith(*entry, kOutput)) memcpy(*entry, kFamily, sizeof(kFamily) - 1);
  }
  Hide(environment, [](const char* entry) { return StartsWith(entry, kReport); });
}

}  // namespace heaptape
