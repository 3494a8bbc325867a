// The functions that this library stands before, in one list, and the real ones behind them.

#ifndef HEAPTAPE_RECORDER_PRELOAD_REAL_FUNCTIONS_H_
#define HEAPTAPE_RECORDER_PRELOAD_REAL_FUNCTIONS_H_

#include <pthread.h>

#include <cstddef>

// Within this library: neither looked up nor replaced from outside.
#pragma GCC visibility push(hidden)

namespace heaptape {

// X(result, name, (parameters), (arguments), what it returns as long as the real one is not known)
#define HEAPTAPE_REAL_FUNCTIONS(X)                                                                                    \
  X(void*, malloc, (std::size_t size), (size), BootstrapAllocate(size))                                               \
  X(void*, calloc, (std::size_t count, std::size_t size), (count, size), BootstrapCalloc(count, size))                \
  X(void*, realloc, (void* pointer, std::size_t size), (pointer, size), pointer ? nullptr : BootstrapAllocate(size))  \
  X(void, free, (void* pointer), (pointer), static_cast<void>(pointer))                                               \
  X(int, posix_memalign, (void** result, std::size_t alignment, std::size_t size), (result, alignment, size),         \
    BootstrapPosixMemalign(result, alignment, size))                                                                  \
  X(void*, aligned_alloc, (std::size_t alignment, std::size_t size), (alignment, size),                               \
    BootstrapAllocate(size, alignment))                                                                               \
  X(void*, memalign, (std::size_t alignment, std::size_t size), (alignment, size), BootstrapAllocate(size, alignment)) \
  X(void*, valloc, (std::size_t size), (size), BootstrapAllocate(size, 4096))                                         \
  X(void*, pvalloc, (std::size_t size), (size), BootstrapAllocate((size + 4095) & ~std::size_t{4095}, 4096))          \
  X(int, malloc_trim, (std::size_t pad), (pad), (static_cast<void>(pad), 0))                                          \
  X(int, mallopt, (int parameter, int value), (parameter, value),                                                     \
    (static_cast<void>(parameter), static_cast<void>(value), 0))                                                      \
  X(std::size_t, malloc_usable_size, (void* pointer), (pointer), (static_cast<void>(pointer), std::size_t{0}))        \
  X(int, pthread_create, (pthread_t* id, const pthread_attr_t* attributes, void* (*start)(void*), void* argument),    \
    (id, attributes, start, argument),                                                                                \
    (static_cast<void>(id), static_cast<void>(attributes), static_cast<void>(start), static_cast<void>(argument), EAGAIN)) \
  X(int, prctl, (int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d), (option, a, b, c, d), \
    static_cast<int>(DirectCall(SYS_prctl, option, static_cast<long>(a), static_cast<long>(b), static_cast<long>(c),  \
                                static_cast<long>(d), 0)))                                                            \
  X(long, syscall, (long number, long a, long b, long c, long d, long e, long f), (number, a, b, c, d, e, f),         \
    DirectCall(number, a, b, c, d, e, f))                                                                             \
  X(int, mlockall, (int flags), (flags), static_cast<int>(DirectCall(SYS_mlockall, flags, 0, 0, 0, 0, 0)))

// Until resolved each entry resolves all of them and goes on; no caller needs to ask.
struct RealFunctions {
#define HEAPTAPE_MEMBER(result, name, parameters, arguments, otherwise) result(*name) parameters;
  HEAPTAPE_REAL_FUNCTIONS(HEAPTAPE_MEMBER)
#undef HEAPTAPE_MEMBER
};
extern RealFunctions real;

// Finds the real functions and the C++ operators (cxx_operators.h). Called at the first call of any of these, which is
// early in the start of the program, in its only thread, and in the constructor.
void Resolve();

// dlsym itself may call calloc, and before the first dlsym there is nothing to hand it to: such blocks come from a
// small area of this library and are never given back.
inline constexpr std::size_t kBootstrapBytes = 16 << 10;
extern char bootstrap[kBootstrapBytes];
inline bool FromBootstrap(const void* pointer) { return pointer >= bootstrap && pointer < bootstrap + kBootstrapBytes; }
std::size_t BootstrapSize(const void* pointer);

}  // namespace heaptape

#pragma GCC visibility pop

#endif  // HEAPTAPE_RECORDER_PRELOAD_REAL_FUNCTIONS_H_
