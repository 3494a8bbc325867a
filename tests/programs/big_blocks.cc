// Never frees two blocks of 4 MiB: of the first it writes pages 100 to 199, of the second, a calloc, none.
// With an argument it then waits to be killed, else it returns.
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char**) {
  constexpr size_t kBytes = 4 << 20, kPage = 4096;
  char* written = static_cast<char*>(malloc(kBytes));
  char* untouched = static_cast<char*>(calloc(1, kBytes));
  if (!written || !untouched) return 1;
  char* pages = written - reinterpret_cast<size_t>(written) % kPage;
  for (size_t page = 100; page < 200; ++page) pages[page * kPage] = 1;
  puts("big_blocks: written");
  fflush(stdout);
  if (argc > 1) pause();
  return 0;
}
