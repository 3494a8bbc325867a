// Where return addresses of the recorded process lie: in which file, at which offset of it. Read from outside it,
// from /proc/PID/maps, so that no address has to be kept.

#ifndef HEAPTAPE_RECORDER_MODULES_H_
#define HEAPTAPE_RECORDER_MODULES_H_

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "recorder/process_memory.h"
#include "traces/trace_info.h"

namespace heaptape {

// The file was opened at the start, because the process may later give up the right to have it opened. A library that was
// unloaded before Resolve() was asked about it may be missed ("[unknown]"), or taken for what was there up to 100 ms before.
class Modules {
 public:
  explicit Modules(int maps);  // /proc/PID/maps, closed here
  ~Modules();
  Modules(const Modules&) = delete;
  Modules& operator=(const Modules&) = delete;

  // In the order of `addresses`. Code that lies in no file has the module "[anonymous]" and
  // offset 0, as has "[unknown]" what lies nowhere any more.
  std::vector<StackFrame> Resolve(std::span<const std::uint64_t> addresses, std::uint64_t now_ns);
  // Every module that Resolve() has named; a frame's module is an index into it.
  const std::vector<Module>& seen() const { return seen_; }

 private:
  static const Mapping* Find(std::span<const Mapping> mappings, std::uint64_t address);
  void Read(std::uint64_t now_ns);
  bool MayReadForUnknown(std::uint64_t now_ns) const;
  std::uint32_t Number(const std::string& path);

  int maps_ = -1;
  std::string buffer_;
  std::vector<Mapping> mappings_;  // ascending
  std::vector<Mapping> unloaded_;  // of the reading before, for what has gone since
  std::uint64_t read_ns_ = 0;
  std::uint64_t first_ns_ = 0;  // of the first Resolve()
  std::uint64_t spent_ns_ = 0;  // CPU time of all readings
  std::map<std::string, std::uint32_t> numbers_;  // by path
  std::vector<Module> seen_;
};

}  // namespace heaptape

#endif  // HEAPTAPE_RECORDER_MODULES_H_
