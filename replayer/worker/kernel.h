// System calls made without the C library, from one short stretch of code.
//
// The allocator under test may have its system calls caught (machine.h); those made here never are,
// because the kernel lets calls from this stretch of code pass. They touch neither errno nor TLS, so they
// are allowed in signal handlers and under a foreign FS base. Results are negative errno values on failure.

#ifndef HEAPTAPE_REPLAYER_WORKER_KERNEL_H_
#define HEAPTAPE_REPLAYER_WORKER_KERNEL_H_

#include <sys/syscall.h>

#include <cstdint>

extern "C" {
long HeaptapeRawSyscall(long number, long a, long b, long c, long d, long e, long f);
void HeaptapeSignalReturn();  // what a handler returns to
extern const char HeaptapeRawSyscallsBegin[];
extern const char HeaptapeRawSyscallsEnd[];
}

namespace heaptape::worker {

template <typename T>
long AsLong(T value) {
  if constexpr (__is_enum(T)) {
    return static_cast<long>(value);
  } else {
    return (long)value;  // pointer or integer
  }
}

template <typename... Args>
long Kernel(long number, Args... args) {
  static_assert(sizeof...(args) <= 6);
  long a[6] = {AsLong(args)...};
  return HeaptapeRawSyscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

inline bool IsKernelError(long result) { return result < 0 && result > -4096; }

}  // namespace heaptape::worker

#endif  // HEAPTAPE_REPLAYER_WORKER_KERNEL_H_
