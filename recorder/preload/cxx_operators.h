// operator new and delete of C++.
//
// The C++ library's operators call malloc and free and are recorded there. An allocator may bring its own, some of which
// come to its malloc and free by way of this library and some of which do not (both are found in one allocator): the
// latter are recorded here. Which is which is found out in the constructor by calling each once, in pairs that belong
// together.
//
// No call of an operator looks anything up: the loader's lock may be held by a thread that waits for this one. What was
// not found at the start (a C program that loads a C++ plugin later) is malloc and free. Only where malloc fails then is
// the caller's own C++ library searched for, under the short lock of dl_iterate_phdr, because it alone can throw.

#ifndef HEAPTAPE_RECORDER_PRELOAD_CXX_OPERATORS_H_
#define HEAPTAPE_RECORDER_PRELOAD_CXX_OPERATORS_H_

#include <new>

#include "recorder/preload/publish.h"

// Within this library: neither looked up nor replaced from outside.
#pragma GCC visibility push(hidden)

namespace heaptape {

enum CxxOperator {
  kNew, kNewArray, kNewNothrow, kNewArrayNothrow, kNewAligned, kNewArrayAligned, kNewAlignedNothrow,
  kNewArrayAlignedNothrow, kDelete, kDeleteArray, kDeleteNothrow, kDeleteArrayNothrow, kDeleteSized,
  kDeleteArraySized, kDeleteAligned, kDeleteArrayAligned, kDeleteAlignedNothrow, kDeleteArrayAlignedNothrow,
  kDeleteSizedAligned, kDeleteArraySizedAligned, kCxxOperatorCount
};

struct RealOperator {
  void* function;  // null: none was there at the start
  bool record;     // it does not come to malloc or free here
};
extern RealOperator real_operators[kCxxOperatorCount];

// Looks them up; `real_malloc` tells which are the allocator's own. Part of Resolve().
void FindOperators(const void* real_malloc);
// In the constructor: which of the allocator's own need to be recorded here.
void ProbeOperators();
// The operator that the code at `caller` would call without this library; null where there is none.
void* OperatorOfCaller(CxxOperator which, const void* caller);

}  // namespace heaptape

#pragma GCC visibility pop

#endif  // HEAPTAPE_RECORDER_PRELOAD_CXX_OPERATORS_H_
