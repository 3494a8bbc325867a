/* What a program finds around it at its start, and whether it may do what it could do alone. Prints a line each; recorded
   it must print the same:
     surroundings environment   the kernel's arrays behind its arguments, as a language that brings its own start reads them
     surroundings lock          mlockall without rights, under a limit of 8 MiB
     surroundings descriptors   which descriptors are open */
#include <dirent.h>
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

extern char** environ;

static int Environment(int argc, char** argv) {
  char** kernels = argv + argc + 1;
  int count = 0, clean = 1, foreign = 0;
  while (kernels[count]) ++count;
  const Elf64_auxv_t* vector = (const Elf64_auxv_t*)(kernels + count + 1);
  long page = 0;
  for (; vector->a_type != AT_NULL; ++vector) {
    if (vector->a_type == AT_PAGESZ) page = (long)vector->a_un.a_val;
  }
  for (char** entry = environ; *entry; ++entry) {
    if (strncmp(*entry, "HEAPTAPE_", 9) == 0 || strstr(*entry, "libheaptape")) clean = 0;
  }
  /* What a program that reads the kernel's array hands to its children must not record these. */
  for (int i = 0; i < count; ++i) {
    if (strstr(kernels[i], "libheaptape") || (strncmp(kernels[i], "HEAPTAPE_", 9) == 0 && strchr(kernels[i], '=')[1])) ++foreign;
  }
  printf("surroundings: page size %ld, environ %s, %d settings left\n", page, clean ? "clean" : "not clean", foreign);
  return 0;
}

static int Lock(void) {
  const struct rlimit limit = {8 << 20, 8 << 20};
  if (setrlimit(RLIMIT_MEMLOCK, &limit) != 0) return 3;
  if (getuid() == 0 && setuid(65534) != 0) return 4;
  const int result = mlockall(MCL_CURRENT | MCL_FUTURE);
  printf("surroundings: mlockall %d\n", result);
  for (int i = 0; i < 1000; ++i) free(malloc(1000));
  return 0;
}

static int Descriptors(void) {
  DIR* folder = opendir("/proc/self/fd");
  const struct dirent* entry;
  int count = 0;
  while (folder && (entry = readdir(folder)) != NULL) count += entry->d_name[0] != '.';
  printf("surroundings: %d descriptors\n", count);
  return 0;
}

int main(int argc, char** argv) {
  const char* what = argc > 1 ? argv[1] : "";
  if (strcmp(what, "environment") == 0) return Environment(argc, argv);
  if (strcmp(what, "lock") == 0) return Lock();
  if (strcmp(what, "descriptors") == 0) return Descriptors();
  return 2;
}
