// Turns calls that name their objects by address, as other tools record them, into a trace.
//
// What an address or a thread's number was in the other file is forgotten here. Calls that contradict what
// came before are set right and counted: notes() says which. kImportBytes a live object, the writer's own
// included. One thread only.

#ifndef HEAPTAPE_TRACES_CONVERT_IMPORTED_PROGRAM_H_
#define HEAPTAPE_TRACES_CONVERT_IMPORTED_PROGRAM_H_

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "traces/event.h"
#include "traces/memory_limit.h"
#include "traces/trace_info.h"
#include "traces/trace_writer.h"

namespace heaptape {

// At most, while the table of addresses grows.
inline constexpr std::uint64_t kImportBytes = 88;

class ImportedProgram {
 public:
  using CreateWriter = std::function<absl::StatusOr<TraceWriter*>(const TraceInfo&)>;

  // `create` is called once, at the first event or in Finish(), with what info() holds by then.
  // `name` stands in messages. ResourceExhausted where the live objects need more than the limit (0: DefaultMemoryLimit()).
  ImportedProgram(TraceInfo info, CreateWriter create, std::string name = "the recording", std::uint64_t memory_limit_bytes = 0)
      : info_(std::move(info)),
        create_(std::move(create)),
        name_(std::move(name)),
        memory_limit_bytes_(memory_limit_bytes != 0 ? memory_limit_bytes : DefaultMemoryLimit()) {}

  TraceInfo& info() { return info_; }

  // Address 0 is a call that failed. `thread` is any number that names it.
  void Allocate(Op op, std::uint64_t address, std::uint64_t size, std::uint64_t alignment, std::int64_t thread);
  void Free(std::uint64_t address, std::int64_t thread);  // of 0: nothing
  // As realloc(): of 0 an allocation, to 0 a free where `size` is 0 and else a failure.
  void Reallocate(std::uint64_t address, std::uint64_t new_address, std::uint64_t size, std::int64_t thread);
  void EndThread(std::int64_t thread);
  void Time(std::uint64_t time_ns);
  // The importer keeps so many bytes more of its own: they count as what the live objects take.
  void Takes(std::uint64_t bytes);

  // Not OK: nothing more is taken.
  const absl::Status& status() const { return status_; }
  // Creates the writer where no event did. Does not finish it.
  absl::Status Finish();
  // Sentences on what did not fit together.
  std::vector<std::string> notes() const;

 private:
  bool Ready();
  std::uint16_t Thread(std::int64_t thread);
  void Start(Op op, std::uint64_t address, std::uint64_t size, std::uint64_t alignment, std::uint16_t thread);

  TraceInfo info_;
  CreateWriter create_;
  std::string name_;
  std::uint64_t memory_limit_bytes_;
  std::uint64_t importer_bytes_ = 0;
  TraceWriter* writer_ = nullptr;
  absl::Status status_;
  absl::flat_hash_map<std::uint64_t, std::uint32_t> slots_;     // by address
  absl::flat_hash_map<std::int64_t, std::uint16_t> threads_;
  std::vector<std::uint16_t> free_threads_;
  std::uint32_t thread_count_ = 0;  // numbers given so far
  std::int64_t last_thread_ = 0;
  std::uint16_t last_number_ = 0;
  bool has_last_ = false;
  bool ended_first_ = false;  // thread 0 has ended, so that its number needs a start when it is given again
  std::uint64_t unknown_frees_ = 0, unknown_reallocs_ = 0, missing_frees_ = 0;
};

}  // namespace heaptape

#endif  // HEAPTAPE_TRACES_CONVERT_IMPORTED_PROGRAM_H_
