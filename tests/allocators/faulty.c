// The baseline allocator with one fault, chosen by FAULT_*, for the conformance checks to find.

#if defined(FAULT_CALLOC)
#define calloc sound_calloc
#elif defined(FAULT_CRASH)
#define valloc sound_valloc
#elif defined(FAULT_NULL)
#define memalign sound_memalign
#elif defined(FAULT_ERRNO) || defined(FAULT_FORWARD)
#define malloc sound_malloc
#endif

#include "allocators/bump.c"  // NOLINT(bugprone-suspicious-include): its functions, under the names above

#undef calloc
#undef valloc
#undef memalign
#undef malloc

#include <stdlib.h>

#if defined(FAULT_CALLOC)
EXPORT void* calloc(size_t count, size_t size) {
  char* block = sound_calloc(count, size);
  if (block != NULL && count * size > 1000) block[count * size - 1] = 1;
  return block;
}
#elif defined(FAULT_CRASH)
EXPORT void* valloc(size_t size) {
  *(volatile size_t*)NULL = size;
  return NULL;
}
#elif defined(FAULT_NULL)
EXPORT void* memalign(size_t alignment, size_t size) {
  static int calls;
  return ++calls > 5000 ? NULL : sound_memalign(alignment, size);
}
#elif defined(FAULT_ERRNO)
EXPORT void* malloc(size_t size) {
  void* block = sound_malloc(size);
  if (block == NULL && getenv("FAULTY_KEEPS_ERRNO") == NULL) errno = 0;
  return block;
}
#elif defined(FAULT_FORWARD)
void* __libc_malloc(size_t size);
EXPORT void* malloc(size_t size) { return __libc_malloc(size); }
#elif defined(FAULT_HANG)
#include <unistd.h>
// As soon as it is loaded.
__attribute__((constructor)) static void Hang(void) {
  for (;;) pause();
}
#elif defined(FAULT_INTRUDE)
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
// As soon as it is loaded: a file, by itself and by another program.
__attribute__((constructor)) static void Intrude(void) {
  char name[64];
  snprintf(name, sizeof(name), "/tmp/heaptape-intruder-%d", (int)getuid());
  close(open(name, O_WRONLY | O_CREAT, 0600));
  if (system("touch /tmp/heaptape-intruder-$(id -u)-too") < 0) return;
}
#endif
