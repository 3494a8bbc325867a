// Makes each call once with a size no other call has, so that the test finds every one in the trace.
#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main() {
  void* a = malloc(100001);
  void* b = calloc(7, 1003);
  b = realloc(b, 10007);
  void* c = realloc(nullptr, 10009);
  c = reallocarray(c, 3, 4001);
  void* d = reallocarray(nullptr, 5, 2003);
  void* e = nullptr;
  if (posix_memalign(&e, 256, 10037) != 0) return 1;
  void* f = aligned_alloc(64, 10048);
  void* g = memalign(4096, 10061);
  void* h = valloc(10067);
  void* i = pvalloc(10069);
  free(nullptr);
  errno = 77;
  void* too_much = malloc((size_t)-4096);
  if (too_much != nullptr || errno != ENOMEM) return 2;
  if (reallocarray(nullptr, (size_t)-1, 16) != nullptr || errno != ENOMEM) return 3;
  void* kept = malloc(10079);
  if (realloc(kept, (size_t)-4096) != nullptr) return 4;
  strcpy((char*)kept, "unchanged");
  mallopt(M_MMAP_THRESHOLD, 1 << 20);
  malloc_trim(12345);
  void* gone = malloc(10091);
  if (realloc(gone, 0) != nullptr) return 5;
  errno = 78;
  void* all[] = {a, b, c, d, e, f, g, h, i, kept};
  for (void* one : all) free(one);
  if (errno != 78) return 6;
  if (malloc_usable_size(nullptr) != 0) return 7;
  void* leaked = malloc(10093);
  printf("%d\n", leaked != nullptr);
  return 0;
}
