/* A program in C, without any C++ library, that loads a plugin which brings one: load_plugin PLUGIN. Prints what the
   plugin's run() returns. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  free(malloc(10));
  void* plugin = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  if (!plugin) {
    fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  int (*run)(void) = (int (*)(void))dlsym(plugin, "run");
  printf("load_plugin: %d\n", run ? run() : -1);
  return 0;
}
