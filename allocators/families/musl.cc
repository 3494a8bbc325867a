// musl's mallocng. musl's shared library is a whole C library and a loader of its own, with thread-local data where
// another C library has its own: it can't be loaded beside one. Its malloc, which asks little of the rest, is compiled
// by itself from musl's source; what it asks of the rest stands in the build below.

#include "allocators/family.h"

namespace heaptape::families {

extern const Family musl = {
    .name = "musl",
    .summary = "mallocng: small groups of slots, hardened, one lock",
    .libraries = {"libmusl-mallocng.so"},
    .statistics = "none",
    .purge = "none",
    .source_packages = {{.name = "musl"}},
    .build = R"(cat > src/malloc/mallocng/glue.h <<'END'
#include <elf.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "atomic.h"
#undef assert
#define assert(x) do { if (!(x)) a_crash(); } while (0)
#define USE_MADV_FREE 0
#define PAGESIZE 4096
#define DISABLE_ALIGNED_ALLOC 0
#define MT 1
#define RDLOCK_IS_EXCLUSIVE 1
#define brk(p) ((uintptr_t)syscall(SYS_brk, p))
#define LOCK_OBJ_DEF
static pthread_mutex_t heap_lock = PTHREAD_MUTEX_INITIALIZER;
static inline uint64_t get_random_secret(void) {
  uint64_t secret = (uintptr_t)&secret * 1103515245;
  const char* random = (const char*)getauxval(AT_RANDOM);
  if (random) memcpy(&secret, random + 8, sizeof(secret));
  return secret;
}
static inline void rdlock(void) { pthread_mutex_lock(&heap_lock); }
static inline void wrlock(void) { pthread_mutex_lock(&heap_lock); }
static inline void unlock(void) { pthread_mutex_unlock(&heap_lock); }
static inline void upgradelock(void) {}
END
cat > mallocng.c <<'END'
#include "src/malloc/mallocng/malloc.c"
#include "src/malloc/mallocng/free.c"
#include "src/malloc/mallocng/realloc.c"
#include "src/malloc/mallocng/aligned_alloc.c"
#include "src/malloc/mallocng/malloc_usable_size.c"
#include "src/malloc/memalign.c"
#include "src/malloc/posix_memalign.c"
#define weak_alias(old, new)
#define __malloc_replaced 0
#define __malloc_allzerop is_allzero
#include "src/malloc/calloc.c"
END
touch dynlink.h
mkdir -p "$PREFIX/lib" &&
${CC:-cc} -O2 -fPIC -shared -std=gnu11 -w -D_GNU_SOURCE -fno-builtin -fno-strict-aliasing -Wl,-Bsymbolic $OPTIONS \
  -iquote . -iquote src/internal -iquote arch/x86_64 mallocng.c -lpthread -o "$PREFIX/lib/libmusl-mallocng.so")",
    .build_needs = {"gcc"},
    .tag_forms = {"vVERSION"},
    .caveat = "its malloc alone, compiled for this C library: the program would run under musl as a whole",
};

}  // namespace heaptape::families
