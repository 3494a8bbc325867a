// Takes from the worker what no allocator needs, before the library under test is loaded: new privileges, the network,
// other programs and processes, files opened for writing. A call that is refused fails with EPERM and is remembered.
//
// What is left to a hostile library: memory up to the limit, time up to the hang timeout, reading files that the
// user may read, and saying wrong things to the host, which believes it nothing but figures.

#ifndef HEAPTAPE_REPLAYER_WORKER_CONFINE_H_
#define HEAPTAPE_REPLAYER_WORKER_CONFINE_H_

namespace heaptape::worker {

// For the calling thread and those it starts. SIGSYS must be handled already: refused calls come there, with si_code
// SYS_SECCOMP. False where the kernel cannot.
bool Confine();

}  // namespace heaptape::worker

#endif  // HEAPTAPE_REPLAYER_WORKER_CONFINE_H_
