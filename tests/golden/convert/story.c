#include <malloc.h>
#include <stdlib.h>
#include <unistd.h>
int main(void) {
  void* small[30];
  for (int i = 0; i < 30; ++i) small[i] = malloc(8 + 3 * i);
  for (int i = 0; i < 30; i += 3) free(small[i]);
  usleep(30000);
  char* grown = realloc(calloc(10, 100), 5000);
  void* fresh = realloc(NULL, 77);
  void* aligned = NULL;
  if (posix_memalign(&aligned, 64, 1000) != 0) return 1;
  void* page = aligned_alloc(4096, 8192);
  free(memalign(32, 100));
  usleep(30000);
  free(grown);
  free(aligned);
  for (int i = 1; i < 30; i += 3) small[i] = realloc(small[i], 500 + i);
  for (int i = 1; i < 30; i += 3) free(small[i]);
  return fresh == page;
}
