// A library to be loaded and unloaded over and over: allocates when it comes, when it is asked and when it goes.
#include <stdlib.h>

static void* volatile kept;

__attribute__((constructor)) static void Load() { kept = malloc(2000); }
__attribute__((destructor)) static void Unload() {
  free(kept);
  free(malloc(2001));
}

extern "C" __attribute__((visibility("default"))) void* Allocate(size_t size) {
  void* volatile block = malloc(size);
  return block;
}
