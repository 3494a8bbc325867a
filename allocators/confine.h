// Takes from a process what no allocator needs, before a library is loaded into it: new privileges, the network, other
// programs and processes, files opened for writing. Worker side: the C library alone.
//
// What is left to a hostile library: memory up to the limit, time up to the limit, reading files that the user may
// read, and saying wrong things to whoever started the process, who believes it nothing but figures and short texts.

#ifndef HEAPTAPE_ALLOCATORS_CONFINE_H_
#define HEAPTAPE_ALLOCATORS_CONFINE_H_

namespace heaptape {

// What becomes of a call that is refused.
enum class Refusal {
  kError,   // it fails with EPERM
  kSignal,  // SIGSYS with si_code SYS_SECCOMP, which must be handled already: the handler sets the result
};

// For the calling thread and those it starts. False where the kernel cannot.
bool Confine(Refusal refusal);

}  // namespace heaptape

#endif  // HEAPTAPE_ALLOCATORS_CONFINE_H_
