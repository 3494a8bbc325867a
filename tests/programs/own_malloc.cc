// Brings its own malloc, as programs linked statically with an allocator do.
#include <stddef.h>
#include <stdio.h>

static char pool[1 << 20];
static size_t used;

extern "C" void* malloc(size_t size) {
  void* block = pool + used;
  used += (size + 15) & ~(size_t)15;
  return used <= sizeof(pool) ? block : nullptr;
}
extern "C" void free(void*) {}
extern "C" void* calloc(size_t count, size_t size) { return malloc(count * size); }
extern "C" void* realloc(void*, size_t size) { return malloc(size); }

int main() {
  puts(malloc(10) ? "own" : "none");
  return 0;
}
