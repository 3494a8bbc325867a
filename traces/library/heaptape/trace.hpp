// Reads heaptape traces from C++20. A thin cover over <heaptape/trace.h>, which says what each member means.
//
//   heaptape::Trace trace("guard.tape");
//   for (heaptape::Batch batch; trace.Next(batch);)
//     for (const heaptape_event& event : batch.events) ...
//
// Failures are thrown as heaptape::Error. One trace may be used by one thread at a time.

#ifndef HEAPTAPE_TRACE_HPP_
#define HEAPTAPE_TRACE_HPP_

#include <heaptape/trace.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace heaptape {

class Error : public std::runtime_error {
 public:
  Error(heaptape_status status, const std::string& message) : std::runtime_error(message), status_(status) {}
  heaptape_status status() const { return status_; }

 private:
  heaptape_status status_;
};

// Valid until the next call of Next() or Seek..() on the trace, or its end.
struct Batch {
  std::span<const heaptape_event> events;
  std::uint64_t first_event = 0;
  std::uint64_t start_time_ns = 0;
  std::uint64_t end_time_ns = 0;
  bool restored = false;
};

inline std::size_t Alignment(const heaptape_event& event) {
  const unsigned power = event.flags & HEAPTAPE_ALIGNMENT_MASK;
  return power == 0 ? 0 : std::size_t{1} << power;
}
inline bool Failed(const heaptape_event& event) { return (event.flags & HEAPTAPE_CALL_FAILED) != 0; }
inline bool Fresh(const heaptape_event& event) { return (event.flags & HEAPTAPE_FRESH) != 0; }
inline const char* Name(const heaptape_event& event) { return heaptape_operation_name(event.operation); }

class Trace {
 public:
  explicit Trace(const std::string& path) {
    char message[HEAPTAPE_MESSAGE_BYTES];
    heaptape_trace* trace = nullptr;
    const heaptape_status status = heaptape_open(path.c_str(), &trace, message);
    if (status != HEAPTAPE_OK) throw Error(status, message);
    trace_.reset(trace);
  }

  const heaptape_info& info() const { return *heaptape_get_info(trace_.get()); }
  const heaptape_summary& summary() const { return *heaptape_get_summary(trace_.get()); }

  // False at the end of the trace.
  bool Next(Batch& batch) {
    const heaptape_batch* next = nullptr;
    Check(heaptape_next(trace_.get(), &next));
    batch = {{next->events, next->event_count}, next->first_event, next->start_time_ns, next->end_time_ns, next->restored != 0};
    return !batch.events.empty();
  }
  void Seek(std::uint64_t event) { Check(heaptape_seek(trace_.get(), event)); }
  void SeekTime(std::uint64_t time_ns) { Check(heaptape_seek_time(trace_.get(), time_ns)); }

  std::span<const heaptape_resident> Resident() {
    const heaptape_resident* samples = nullptr;
    std::size_t count = 0;
    Check(heaptape_get_resident(trace_.get(), &samples, &count));
    return {samples, count};
  }

  std::vector<std::string> Damage() const {
    std::vector<std::string> sentences;
    while (const char* sentence = heaptape_damage(trace_.get(), sentences.size())) sentences.emplace_back(sentence);
    return sentences;
  }

 private:
  struct Close {
    void operator()(heaptape_trace* trace) const { heaptape_close(trace); }
  };
  void Check(heaptape_status status) const {
    if (status != HEAPTAPE_OK) throw Error(status, heaptape_message(trace_.get()));
  }

  std::unique_ptr<heaptape_trace, Close> trace_;
};

}  // namespace heaptape

#endif  // HEAPTAPE_TRACE_HPP_
