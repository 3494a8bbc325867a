// The calls of a trace made in a bare loop: what replaying costs without a replay engine.
//
// bare_loop LIBRARY PREFIX EVENTS: LIBRARY may be empty for the C library; PREFIX stands before its functions' names and is
// mostly empty; EVENTS is a file of traces/event.h Events of one thread. Prints the nanoseconds of CPU time the loop took.

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>

#include "allocators/loader.h"
#include "traces/event.h"

namespace {

std::uint64_t CpuNs() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::uint64_t>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1'000;
}

}  // namespace

int main(int argc, char** argv) {
  using heaptape::Event;
  using heaptape::Op;
  static heaptape::LoadedAllocator allocator;
  char error[512];
  if (argc != 4 || !heaptape::LoadAllocator(argv[1], argv[2], allocator, error, sizeof(error))) {
    fprintf(stderr, "bare_loop: %s\n", argc != 4 ? "usage: bare_loop LIBRARY PREFIX EVENTS" : error);
    return 2;
  }
  const int file = open(argv[3], O_RDONLY);
  struct stat status;
  if (file < 0 || fstat(file, &status) != 0) return 1;
  const std::size_t count = static_cast<std::size_t>(status.st_size) / sizeof(Event);
  const void* mapped = mmap(nullptr, status.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, 0);
  if (mapped == MAP_FAILED) return 1;
  const auto* events = static_cast<const Event*>(mapped);
  std::uint32_t slots = 0;
  for (std::size_t i = 0; i < count; ++i) slots = events[i].slot >= slots ? events[i].slot + 1 : slots;
  auto** objects = static_cast<void**>(mmap(nullptr, (slots + 1ul) * sizeof(void*), PROT_READ | PROT_WRITE,
                                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0));

  const heaptape::AllocatorFunctions f = allocator.functions;
  const std::uint64_t start = CpuNs();
  for (const Event* event = events; event != events + count; ++event) {
    switch (event->op) {
      case Op::kMalloc:
        objects[event->slot] = f.malloc(event->size);
        break;
      case Op::kCalloc:
        objects[event->slot] = f.calloc(1, event->size);
        break;
      case Op::kRealloc:
      case Op::kReallocArray:
        objects[event->slot] = f.realloc(event->fresh() ? nullptr : objects[event->slot], event->size);
        break;
      case Op::kFree:
        f.free(objects[event->slot]);
        break;
      case Op::kPosixMemalign:
        f.posix_memalign(&objects[event->slot], event->alignment(), event->size);
        break;
      default:
        break;
    }
  }
  printf("%llu\n", static_cast<unsigned long long>(CpuNs() - start));
  return 0;
}
