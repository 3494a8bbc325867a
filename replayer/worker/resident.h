// Anonymous memory of this process, exact to the page.
//
// From /proc/self/statm (resident less shared) where its counters pass the self-test, else from
// smaps_rollup, which walks the page tables. Both are files kept open and read by pread, without
// allocation, TLS or errno: Read() may be called inside a signal handler.

#ifndef HEAPTAPE_REPLAYER_WORKER_RESIDENT_H_
#define HEAPTAPE_REPLAYER_WORKER_RESIDENT_H_

#include <cstdint>

namespace heaptape::worker {

// "resident - shared" of a line of statm, in pages; -1 where it is not one.
long ParseStatm(const char* text, long length);
// The value in KiB of the line of smaps_rollup that begins with `name` ("Anonymous:"); -1 if absent.
long ParseSmapsField(const char* text, long length, const char* name);

class ResidentMeter {
 public:
  // Opens the files and compares the counters page by page with memory of its own. Some kernels (6.2 to
  // about 6.15) count in batches per CPU: exact() is then false and ReadBytes() uses the slow source, as it
  // does where the counters are not to be trusted.
  bool Open(bool trust_counters);
  bool exact() const { return exact_; }

  std::uint64_t ReadBytes() const;      // anonymous resident memory
  // The same from the counters, however exact they are: a microsecond.
  std::uint64_t ReadCounterBytes() const;
  std::uint64_t ReadLazyFreeBytes() const;  // given back by MADV_FREE but still resident; slow

 private:
  bool SelfTest() const;
  long ReadStatmPages() const;
  long ReadSmapsKib(const char* field) const;

  int statm_ = -1;
  int smaps_ = -1;
  bool exact_ = false;
};

}  // namespace heaptape::worker

#endif  // HEAPTAPE_REPLAYER_WORKER_RESIDENT_H_
