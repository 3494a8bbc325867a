// Frees argv[2] blocks that a plugin, argv[1], allocates while it sees the C library before what is preloaded, as PHP's and
// Apache's modules do. Its own 100 blocks go the usual way.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  void* plugin = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
  void* (*allocate)(size_t) = plugin ? reinterpret_cast<void* (*)(size_t)>(dlsym(plugin, "Allocate")) : nullptr;
  if (!allocate) return 1;
  for (int i = 0; i < 100; ++i) free(malloc(5555));
  const int count = atoi(argv[2]);
  void** blocks = static_cast<void**>(malloc(count * sizeof(void*)));
  for (int i = 0; i < count; ++i) blocks[i] = allocate(6666);
  for (int i = 0; i < count; ++i) free(blocks[i]);
  free(blocks);
  puts("deepbind: done");
  return 0;
}
