#include "recorder/preload/real_functions.h"

#include <dlfcn.h>
#include <errno.h>

#include <atomic>
#include <cstdint>

#include "recorder/preload/cxx_operators.h"
#include "recorder/preload/system.h"

namespace heaptape {

alignas(64) char bootstrap[kBootstrapBytes];

namespace {

std::atomic<std::size_t> bootstrap_used;

void* BootstrapAllocate(std::size_t size, std::size_t alignment = 16) {
  if (size > kBootstrapBytes || alignment > 4096) return nullptr;
  const std::size_t take = (size + alignment + 31) & ~std::size_t{15};
  const std::size_t at = bootstrap_used.fetch_add(take);
  if (at + take > kBootstrapBytes) return nullptr;
  const auto start = reinterpret_cast<std::uintptr_t>(bootstrap) + at + 16;
  const std::uintptr_t block = (start + alignment - 1) & ~(alignment - 1);
  reinterpret_cast<std::size_t*>(block)[-1] = size;
  return reinterpret_cast<void*>(block);
}

void* BootstrapCalloc(std::size_t count, std::size_t size) {
  std::size_t bytes;
  return __builtin_mul_overflow(count, size, &bytes) ? nullptr : BootstrapAllocate(bytes);  // zeroed: never reused
}

int BootstrapPosixMemalign(void** result, std::size_t alignment, std::size_t size) {
  void* block = BootstrapAllocate(size, alignment);
  if (!block) return ENOMEM;
  *result = block;
  return 0;
}

// As the C library's syscall().
long DirectCall(long number, long a, long b, long c, long d, long e, long f) {
  const long result = SystemCall(number, a, b, c, d, e, f);
  if (result >= 0 || result < -4095) return result;
  errno = static_cast<int>(-result);
  return -1;
}

std::atomic<bool> resolved;
thread_local bool resolving __attribute__((tls_model("initial-exec")));

#define HEAPTAPE_FIRST(result, name, parameters, arguments, otherwise) \
  result First_##name parameters {                                     \
    Resolve();                                                         \
    return real.name != First_##name ? real.name arguments : otherwise; \
  }
HEAPTAPE_REAL_FUNCTIONS(HEAPTAPE_FIRST)
#undef HEAPTAPE_FIRST

}  // namespace

RealFunctions real = {
#define HEAPTAPE_INITIAL(result, name, parameters, arguments, otherwise) First_##name,
    HEAPTAPE_REAL_FUNCTIONS(HEAPTAPE_INITIAL)
#undef HEAPTAPE_INITIAL
};

std::size_t BootstrapSize(const void* pointer) { return static_cast<const std::size_t*>(pointer)[-1]; }

void Resolve() {
  if (resolved.load(std::memory_order_acquire) || resolving) return;
  resolving = true;
  RealFunctions found = real;
#define HEAPTAPE_RESOLVE(result, name, parameters, arguments, otherwise) \
  if (void* const function = dlsym(RTLD_NEXT, #name)) found.name = reinterpret_cast<decltype(found.name)>(function);
  HEAPTAPE_REAL_FUNCTIONS(HEAPTAPE_RESOLVE)
#undef HEAPTAPE_RESOLVE
  real = found;
  FindOperators(reinterpret_cast<void*>(found.malloc));
  dlerror();  // names that no library has are not the program's errors
  resolving = false;
  resolved.store(true, std::memory_order_release);
}

}  // namespace heaptape
