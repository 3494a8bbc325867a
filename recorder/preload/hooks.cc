// libheaptape.so: records the calls a program makes to malloc and its kin, from inside the program.
//
// Rules. This code runs inside other people's malloc, in signal handlers, between fork and exec, before main and after
// the last destructor.
//   - Never allocate, throw, log, exit, take a lock, or change errno. The one line of text at the start is the writer's
//     or the constructor's.
//   - Hold nothing while the real allocator runs: no flag, no lock, no half-written event.
//   - Bound every wait; past the bound recording ends and the program runs on unrecorded.
//   - After the constructor make no system call but FUTEX_WAIT_PRIVATE, used as a sleep, and that only where no seccomp
//     filter forbids it (filters.h).
//   - Look nothing up after the constructor: the loader's lock may be held by a thread that waits for this one.
//   - Need the C library alone, so that no allocation is added to the program. Only where call stacks are asked for does
//     the constructor load the unwinder of libgcc_s, which makes no system call, waits for nobody and allocates nothing.

#include "recorder/preload/hooks.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include <new>

#include "recorder/preload/cxx_operators.h"
#include "recorder/preload/filters.h"
#include "recorder/preload/large_blocks.h"
#include "recorder/preload/process.h"
#include "recorder/preload/publish.h"
#include "recorder/preload/real_functions.h"
#include "recorder/preload/stacks.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace heaptape {
namespace {

// --- what the exported functions share -----------------------------------------------------------------

// Sets what lies below the caller's frame to 0.
__attribute__((noinline)) void WipeStack() {
  char area[1024];
  memset(area, 0, sizeof(area));
  __asm__ volatile("" : : "r"(area) : "memory");
}

inline std::uint32_t AlignmentLog2(std::size_t alignment) {
  if (alignment <= 1) return 0;
  return static_cast<std::uint32_t>(64 - __builtin_clzl(alignment - 1));  // of the next power of two
}

// The rare cases: a large block, an alignment, a call stack that is due.
__attribute__((noinline)) void RecordWithExtras(RawOp op, const void* pointer, std::size_t size, std::uint32_t align_log2,
                                                const void* caller) {
  Frames frames;
  const Frames* taken = nullptr;
  if (pointer && CountToStack(size) && StackIsDue() && TakeStack(&frames, caller)) taken = &frames;
  const Extras extras = {.align_log2 = align_log2, .frames = taken};
  if (size >= kBigBytes) return RecordLarge(op, pointer, size, size, extras);
  RecordSlow(op, reinterpret_cast<std::uint64_t>(pointer), size, extras);
}

inline void RecordAllocation(RawOp op, const void* pointer, std::size_t size) {
  if (UNLIKELY(size >= kBigBytes || thread.stack_left <= static_cast<std::int64_t>(size))) {
    return RecordWithExtras(op, pointer, size, 0, __builtin_return_address(0));
  }
  thread.stack_left -= static_cast<std::int64_t>(size);
  Record(op, pointer, size);
}

inline void RecordAligned(RawOp op, const void* pointer, std::size_t alignment, std::size_t size) {
  RecordWithExtras(op, pointer, size, AlignmentLog2(alignment), __builtin_return_address(0));
}

// A free, or the beginning of a realloc.
inline void RecordEnd(RawOp op, void* pointer) {
  if (MaybeLarge(pointer)) {
    const std::size_t usable = real.malloc_usable_size(pointer);
    if (usable >= kBigBytes) return RecordLarge(op, pointer, 0, usable, {});
  }
  Record(op, pointer, 0);
}

inline void* Allocate(std::size_t size) {
  void* result = real.malloc(size);
  RecordAllocation(RawOp::kMalloc, result, size);
  return result;
}

inline void* AllocateAligned(std::size_t alignment, std::size_t size) {
  void* result = real.aligned_alloc(alignment, size);
  RecordAligned(RawOp::kAlignedAlloc, result, alignment, size);
  return result;
}

inline void Free(void* pointer) {
  if (!pointer || UNLIKELY(FromBootstrap(pointer))) return;
  RecordEnd(RawOp::kFree, pointer);
  real.free(pointer);
}

inline void* Reallocate(void* pointer, std::size_t size, bool array) {
  if (!pointer) {
    void* result = real.realloc(nullptr, size);
    RecordAllocation(array ? RawOp::kReallocArrayFresh : RawOp::kReallocFresh, result, size);
    return result;
  }
  if (UNLIKELY(FromBootstrap(pointer))) {
    void* result = Allocate(size);
    const std::size_t old = BootstrapSize(pointer);
    if (result) memcpy(result, pointer, old < size ? old : size);
    return result;
  }
  RecordEnd(RawOp::kReallocBegin, pointer);
  void* result = real.realloc(pointer, size);
  if (!result && size == 0) {
    Record(RawOp::kReallocFreed, nullptr, 0);
  } else {
    RecordAllocation(array ? RawOp::kReallocArrayEnd : RawOp::kReallocEnd, result, size);
  }
  return result;
}

// Where no C++ library was there at the start. `real_new` is called only for what it does where memory is short: call
// the program's new handler, throw.
template <typename... Rest>
void* PlainNew(CxxOperator which, std::size_t size, std::size_t alignment, const void* caller, Rest... rest) {
  const std::size_t bytes = size ? size : 1;
  void* result = alignment ? AllocateAligned(alignment, bytes) : Allocate(bytes);
  if (LIKELY(result != nullptr)) return result;
  void* const real_new = OperatorOfCaller(which, caller);
  return real_new ? reinterpret_cast<void* (*)(std::size_t, Rest...)>(real_new)(size, rest...) : nullptr;
}

template <typename... Rest>
inline void* New(CxxOperator which, std::size_t size, std::size_t alignment, Rest... rest) {
  const RealOperator& next = real_operators[which];
  if (UNLIKELY(!next.function)) return PlainNew(which, size, alignment, __builtin_return_address(0), rest...);
  void* result = reinterpret_cast<void* (*)(std::size_t, Rest...)>(next.function)(size, rest...);
  if (next.record && LIKELY(!thread.probing)) {
    if (alignment) {
      RecordAligned(RawOp::kAlignedAlloc, result, alignment, size);
    } else {
      RecordAllocation(RawOp::kMalloc, result, size);
    }
  }
  return result;
}

template <typename... Rest>
inline void Delete(CxxOperator which, void* pointer, Rest... rest) {
  const RealOperator& next = real_operators[which];
  if (UNLIKELY(!next.function)) return Free(pointer);
  if (next.record && pointer && LIKELY(!thread.probing)) RecordEnd(RawOp::kFree, pointer);
  reinterpret_cast<void (*)(void*, Rest...)>(next.function)(pointer, rest...);
}

}  // namespace
}  // namespace heaptape

// --- the functions the program calls ---------------------------------------------------------------------

using heaptape::RawOp;
using heaptape::real;

EXPORT void* malloc(std::size_t size) noexcept { return heaptape::Allocate(size); }

void* heaptape::OwnMalloc() { return reinterpret_cast<void*>(&malloc); }

EXPORT void free(void* pointer) noexcept { heaptape::Free(pointer); }

EXPORT void cfree(void* pointer) noexcept { heaptape::Free(pointer); }

EXPORT void* calloc(std::size_t count, std::size_t size) noexcept {
  void* result = real.calloc(count, size);
  std::size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes)) bytes = ~std::size_t{0};
  heaptape::RecordAllocation(RawOp::kCalloc, result, bytes);
  return result;
}

EXPORT void* realloc(void* pointer, std::size_t size) noexcept { return heaptape::Reallocate(pointer, size, false); }

// The C library's own would call realloc, which would be recorded as well.
EXPORT void* reallocarray(void* pointer, std::size_t count, std::size_t size) noexcept {
  std::size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes)) {
    errno = ENOMEM;
    return nullptr;
  }
  return heaptape::Reallocate(pointer, bytes, true);
}

EXPORT int posix_memalign(void** result, std::size_t alignment, std::size_t size) noexcept {
  const int error = real.posix_memalign(result, alignment, size);
  heaptape::RecordAligned(RawOp::kPosixMemalign, error ? nullptr : *result, alignment, size);
  return error;
}

EXPORT void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept {
  return heaptape::AllocateAligned(alignment, size);
}

EXPORT void* memalign(std::size_t alignment, std::size_t size) noexcept {
  void* result = real.memalign(alignment, size);
  heaptape::RecordAligned(RawOp::kMemalign, result, alignment, size);
  return result;
}

EXPORT void* valloc(std::size_t size) noexcept {
  void* result = real.valloc(size);
  heaptape::RecordAllocation(RawOp::kValloc, result, size);
  return result;
}

EXPORT void* pvalloc(std::size_t size) noexcept {
  void* result = real.pvalloc(size);
  heaptape::RecordAllocation(RawOp::kPvalloc, result, size);
  return result;
}

EXPORT int malloc_trim(std::size_t pad) noexcept {
  heaptape::Record(RawOp::kTrim, nullptr, pad);
  return real.malloc_trim(pad);
}

EXPORT int mallopt(int parameter, int value) noexcept {
  heaptape::Record(RawOp::kMallopt, reinterpret_cast<void*>(static_cast<std::uintptr_t>(static_cast<unsigned>(parameter))),
                   static_cast<unsigned>(value));
  return real.mallopt(parameter, value);
}

// --- functions that are not recorded ---------------------------------------------------------------------

// A seccomp filter (tor's Sandbox 1) may forbid the C library to read the thread's signal mask here. It does not check
// whether it could, and later sets the mask to what lay on the stack: what this library's frames have left there would
// block other signals than without it, SIGHUP among them. So nothing lies there, and none is blocked.
EXPORT int pthread_create(pthread_t* id, const pthread_attr_t* attributes, void* (*start)(void*), void* argument) noexcept {
  heaptape::WipeStack();
  return real.pthread_create(id, attributes, start, argument);
}

// Both are variadic for their callers, who pass in registers whatever they have.
EXPORT int heaptape_prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d) noexcept
    __asm__("prctl");
EXPORT int heaptape_prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d) noexcept {
  heaptape::NoteFilterCall(SYS_prctl, option, static_cast<long>(a), static_cast<long>(b));
  return real.prctl(option, a, b, c, d);
}

EXPORT long heaptape_syscall(long number, long a, long b, long c, long d, long e, long f) noexcept __asm__("syscall");
EXPORT long heaptape_syscall(long number, long a, long b, long c, long d, long e, long f) noexcept {
  heaptape::NoteFilterCall(number, a, b, c);
  return real.syscall(number, a, b, c, d, e, f);
}

// What is mapped counts for the limit on locked memory, used or not.
EXPORT int mlockall(int flags) noexcept {
  heaptape::ReleaseSpares();
  return real.mlockall(flags);
}

// --- the operators a C++ program calls -----------------------------------------------------------------------

#define EXPORT_CXX __attribute__((visibility("default")))
using heaptape::Delete;
using heaptape::New;
using std::align_val_t;
using std::nothrow_t;
using std::size_t;

EXPORT_CXX void* operator new(size_t size) { return New(heaptape::kNew, size, 0); }
EXPORT_CXX void* operator new[](size_t size) { return New(heaptape::kNewArray, size, 0); }
EXPORT_CXX void* operator new(size_t size, const nothrow_t& tag) noexcept {
  return New(heaptape::kNewNothrow, size, 0, &tag);
}
EXPORT_CXX void* operator new[](size_t size, const nothrow_t& tag) noexcept {
  return New(heaptape::kNewArrayNothrow, size, 0, &tag);
}
EXPORT_CXX void* operator new(size_t size, align_val_t alignment) {
  return New(heaptape::kNewAligned, size, static_cast<size_t>(alignment), alignment);
}
EXPORT_CXX void* operator new[](size_t size, align_val_t alignment) {
  return New(heaptape::kNewArrayAligned, size, static_cast<size_t>(alignment), alignment);
}
EXPORT_CXX void* operator new(size_t size, align_val_t alignment, const nothrow_t& tag) noexcept {
  return New(heaptape::kNewAlignedNothrow, size, static_cast<size_t>(alignment), alignment, &tag);
}
EXPORT_CXX void* operator new[](size_t size, align_val_t alignment, const nothrow_t& tag) noexcept {
  return New(heaptape::kNewArrayAlignedNothrow, size, static_cast<size_t>(alignment), alignment, &tag);
}
EXPORT_CXX void operator delete(void* pointer) noexcept { Delete(heaptape::kDelete, pointer); }
EXPORT_CXX void operator delete[](void* pointer) noexcept { Delete(heaptape::kDeleteArray, pointer); }
EXPORT_CXX void operator delete(void* pointer, const nothrow_t& tag) noexcept {
  Delete(heaptape::kDeleteNothrow, pointer, &tag);
}
EXPORT_CXX void operator delete[](void* pointer, const nothrow_t& tag) noexcept {
  Delete(heaptape::kDeleteArrayNothrow, pointer, &tag);
}
EXPORT_CXX void operator delete(void* pointer, size_t size) noexcept { Delete(heaptape::kDeleteSized, pointer, size); }
EXPORT_CXX void operator delete[](void* pointer, size_t size) noexcept {
  Delete(heaptape::kDeleteArraySized, pointer, size);
}
EXPORT_CXX void operator delete(void* pointer, align_val_t alignment) noexcept {
  Delete(heaptape::kDeleteAligned, pointer, alignment);
}
EXPORT_CXX void operator delete[](void* pointer, align_val_t alignment) noexcept {
  Delete(heaptape::kDeleteArrayAligned, pointer, alignment);
}
EXPORT_CXX void operator delete(void* pointer, align_val_t alignment, const nothrow_t& tag) noexcept {
  Delete(heaptape::kDeleteAlignedNothrow, pointer, alignment, &tag);
}
EXPORT_CXX void operator delete[](void* pointer, align_val_t alignment, const nothrow_t& tag) noexcept {
  Delete(heaptape::kDeleteArrayAlignedNothrow, pointer, alignment, &tag);
}
EXPORT_CXX void operator delete(void* pointer, size_t size, align_val_t alignment) noexcept {
  Delete(heaptape::kDeleteSizedAligned, pointer, size, alignment);
}
EXPORT_CXX void operator delete[](void* pointer, size_t size, align_val_t alignment) noexcept {
  Delete(heaptape::kDeleteArraySizedAligned, pointer, size, alignment);
}
