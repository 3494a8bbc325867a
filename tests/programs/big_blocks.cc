// Never frees two blocks of 4 MiB: of the first it writes pages 100 to 199, of the second, a calloc, none.
// With the argument "wait" it then waits to be killed, with "hurry" it allocates and frees large blocks faster than they
// can be looked at, else it returns.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char** argv) {
  constexpr size_t kBytes = 4 << 20, kPage = 4096;
  char* written = static_cast<char*>(malloc(kBytes));
  char* untouched = static_cast<char*>(calloc(1, kBytes));
  if (!written || !untouched) return 1;
  char* pages = written - reinterpret_cast<size_t>(written) % kPage;
  for (size_t page = 100; page < 200; ++page) pages[page * kPage] = 1;
  puts("big_blocks: written");
  fflush(stdout);
  if (argc > 1 && strcmp(argv[1], "wait") == 0) pause();
  if (argc > 1 && strcmp(argv[1], "hurry") == 0) {
    for (int i = 0; i < 5000; ++i) {
      char* volatile block = static_cast<char*>(malloc(256 << 10));
      block[0] = 1;
      free(block);
    }
  }
  return 0;
}
