// A program that has dropped its rights and does what it can to its recorder: it finds the memory that it shares with the
// writer and writes into it for a while.
//   overwrites SECONDS SEED PATH   PATH is searched for there, because what the writer opens must not be

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

namespace {

struct Area {
  unsigned char* start;
  size_t bytes;
};

// The shared mappings of no file.
int FindShared(Area* areas, int most) {
  FILE* maps = fopen("/proc/self/maps", "r");
  char line[512];
  int count = 0;
  while (maps && count < most && fgets(line, sizeof(line), maps)) {
    unsigned long start, end;
    char rights[8];
    if (sscanf(line, "%lx-%lx %7s", &start, &end, rights) != 3 || strcmp(rights, "rw-s") != 0) continue;
    areas[count++] = {reinterpret_cast<unsigned char*>(start), end - start};
  }
  if (maps) fclose(maps);
  return count;
}

uint64_t Next(uint64_t& state) {
  state ^= state << 13;
  state ^= state >> 7;
  return state ^= state << 17;
}

}  // namespace

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? atof(argv[1]) : 1;
  uint64_t state = argc > 2 ? strtoull(argv[2], nullptr, 10) * 2 + 1 : 1;
  const char* const path = argc > 3 ? argv[3] : "";
  for (int i = 0; i < 1000; ++i) free(malloc(100));
  if (getuid() == 0 && setuid(65534) != 0) return 3;
  Area areas[8];
  const int count = FindShared(areas, 8);
  size_t paths = 0;
  for (int i = 0; i < count; ++i) {
    // Only what is in use: the rest reads as zeros and would be filled by looking at it.
    const size_t bytes = areas[i].bytes < (4u << 20) ? areas[i].bytes : 4u << 20;
    if (*path && memmem(areas[i].start, bytes, path, strlen(path))) ++paths;
  }
  printf("overwrites: uid %d, %d areas, %zu paths\n", static_cast<int>(getuid()), count, paths);
  fflush(stdout);
  timespec start, now;
  clock_gettime(CLOCK_MONOTONIC, &start);
  do {
    for (int i = 0; i < 2000 && count > 0; ++i) {
      const Area& area = areas[Next(state) % static_cast<uint64_t>(count)];
      // Most of what matters lies at the start; every kind of value is tried.
      const size_t reach = Next(state) % 2 ? 16384 : area.bytes;
      const size_t at = Next(state) % (reach / 4) * 4;
      const uint64_t values[] = {0, 1, 0x7fffffff, 0xffffffff, 0xfffffffe, Next(state), Next(state) % 1024};
      const auto value = static_cast<uint32_t>(values[Next(state) % 7]);
      memcpy(area.start + at, &value, sizeof(value));
      // By the way of the recorder as well, as long as it lets itself be used.
    }
    clock_gettime(CLOCK_MONOTONIC, &now);
  } while (now.tv_sec - start.tv_sec + 1e-9 * static_cast<double>(now.tv_nsec - start.tv_nsec) < seconds);
  _exit(0);
}
