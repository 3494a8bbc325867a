#include "replayer/worker/resident.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "replayer/worker/kernel.h"
#include "replayer/worker/protocol.h"

namespace heaptape::worker {
namespace {

long ParseNumber(const char*& at, const char* end) {
  while (at != end && *at == ' ') ++at;
  if (at == end || *at < '0' || *at > '9') return -1;
  long value = 0;
  for (; at != end && *at >= '0' && *at <= '9'; ++at) value = value * 10 + (*at - '0');
  return value;
}

int OpenRead(const char* path) {
  const long descriptor = Kernel(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
  return IsKernelError(descriptor) ? -1 : static_cast<int>(descriptor);
}

}  // namespace

long ParseStatm(const char* text, long length) {
  const char* at = text;
  const char* end = text + length;
  const long size = ParseNumber(at, end);
  const long resident = ParseNumber(at, end);
  const long shared = ParseNumber(at, end);
  return size < 0 || resident < 0 || shared < 0 ? -1 : resident - shared;
}

long ParseSmapsField(const char* text, long length, const char* name) {
  const long name_length = static_cast<long>(strlen(name));
  const char* end = text + length;
  for (const char* line = text; line < end;) {
    const char* next = static_cast<const char*>(memchr(line, '\n', end - line));
    if (next == nullptr) next = end;
    if (next - line > name_length && memcmp(line, name, name_length) == 0) {
      const char* at = line + name_length;
      return ParseNumber(at, next);
    }
    line = next + 1;
  }
  return -1;
}

bool ResidentMeter::Open(bool trust_counters) {
  statm_ = OpenRead("/proc/self/statm");
  smaps_ = OpenRead("/proc/self/smaps_rollup");
  if (statm_ < 0) return false;
  exact_ = trust_counters && SelfTest();
  return exact_ || smaps_ >= 0;
}

bool ResidentMeter::SelfTest() const {
  constexpr long kPages = 80;  // more than one batch of any kernel's per-CPU counters on two CPUs
  const long mapped = Kernel(SYS_mmap, 0, kPages * kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (IsKernelError(mapped)) return false;
  volatile char* pages = reinterpret_cast<volatile char*>(mapped);
  const long before = ReadStatmPages();
  bool exact = before >= 0;
  for (long i = 0; exact && i < kPages; ++i) {
    pages[i * kPageBytes] = 1;
    exact = ReadStatmPages() == before + i + 1;
  }
  Kernel(SYS_munmap, mapped, kPages * kPageBytes);
  return exact && ReadStatmPages() == before;
}

long ResidentMeter::ReadStatmPages() const {
  char text[160];
  const long length = Kernel(SYS_pread64, statm_, text, sizeof(text), 0);
  return length <= 0 ? -1 : ParseStatm(text, length);
}

long ResidentMeter::ReadSmapsKib(const char* field) const {
  char text[2048];
  const long length = Kernel(SYS_pread64, smaps_, text, sizeof(text), 0);
  return length <= 0 ? -1 : ParseSmapsField(text, length, field);
}

std::uint64_t ResidentMeter::ReadBytes() const {
  const long pages = exact_ ? ReadStatmPages() : ReadSmapsKib("Anonymous:") / static_cast<long>(kPageBytes >> 10);
  return pages < 0 ? 0 : static_cast<std::uint64_t>(pages) * kPageBytes;
}

std::uint64_t ResidentMeter::ReadCounterBytes() const {
  const long pages = ReadStatmPages();
  return pages < 0 ? 0 : static_cast<std::uint64_t>(pages) * kPageBytes;
}

std::uint64_t ResidentMeter::ReadLazyFreeBytes() const {
  const long kib = smaps_ < 0 ? -1 : ReadSmapsKib("LazyFree:");
  return kib < 0 ? 0 : static_cast<std::uint64_t>(kib) << 10;
}

}  // namespace heaptape::worker
