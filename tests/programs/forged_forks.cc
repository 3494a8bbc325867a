// A program that has dropped its rights and publishes forks that never happened, of processes that are none of its own, in all
// the memory that it shares with its writer:
//   forged_forks SECONDS PID   PID is another user's process
// It ends with status 7.

#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "recorder/raw_event.h"

using namespace heaptape;

static Region* first;
static Region* spares;
static unsigned spare_count;

static void FindRegions() {
  FILE* maps = fopen("/proc/self/maps", "r");
  char line[512];
  while (maps && fgets(line, sizeof(line), maps)) {
    unsigned long start, end;
    char rights[8];
    if (sscanf(line, "%lx-%lx %7s", &start, &end, rights) != 3 || strcmp(rights, "rw-s") != 0) continue;
    if (end - start == sizeof(Region)) first = (Region*)start;
    else if ((end - start) % sizeof(Region) == 0) spares = (Region*)start, spare_count = (end - start) / sizeof(Region);
  }
  if (maps) fclose(maps);
}

// As many forks as a chunk holds, all for that region.
static void Forge(Region* region, unsigned index) {
  const unsigned chunk = 600 + index;
  ChunkHeader& header = region->headers[chunk];
  if (header.state != ChunkState::kFree) return;
  unsigned number = region->number;
  for (unsigned i = 0; i < kOwnedEvents; ++i) region->events[chunk][i] = RawEvent::Make(RawOp::kFork, 0, index, number++);
  region->events[chunk][kOwnedEvents] = {0, 0};
  header.thread = 1;
  header.tid = 0;
  region->unused = kChunkCount;
  header.state = ChunkState::kClosed;
  region->number = number;
}

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  for (int i = 0; i < 1000; ++i) free(malloc(100));
  if (getuid() == 0 && (setgroups(0, nullptr) != 0 || setgid(65534) != 0 || setuid(65534) != 0)) return 3;
  FindRegions();
  if (!first || !spares) return 4;
  usleep(200000);
  first->generation = 0;
  usleep(50000);
  timespec start, now;
  clock_gettime(CLOCK_MONOTONIC, &start);
  do {
    for (unsigned i = 1; i <= spare_count; ++i) {
      ForkSlot& slot = first->forks[i];
      slot.claimed = 1;
      slot.parent = 0;
      slot.role = ProcessRole::kMain;
      slot.child_pid = i % 2 ? getpid() : atoi(argv[2]);
      Forge(first, i);
      for (unsigned j = 0; j < spare_count; ++j) Forge(&spares[j], i);
    }
    usleep(20000);
    clock_gettime(CLOCK_MONOTONIC, &now);
  } while (now.tv_sec - start.tv_sec < atol(argv[1]));
  _exit(7);
}
