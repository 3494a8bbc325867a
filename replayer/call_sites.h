// Follows a replay and says which place in the recorded program asked for what is alive.
//
//   auto sites = CallSites::Read(reader, {});   // null: the recording has no stacks
//   sites->Follow(events);                      // all of them, in order
//   CallSites::Tally tally(sites.get());        // at any moment
//   tally.AddObject(slot, bytes); ... tally.Sites();

#ifndef HEAPTAPE_REPLAYER_CALL_SITES_H_
#define HEAPTAPE_REPLAYER_CALL_SITES_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "replayer/results.h"
#include "traces/event.h"
#include "traces/trace_reader.h"

namespace heaptape {

// One thread only.
class CallSites {
 public:
  // `symbol_folders`: see symbols.h.
  static absl::StatusOr<std::unique_ptr<CallSites>> Read(TraceReader& reader, const std::vector<std::string>& symbol_folders);

  void Follow(std::span<const Event> events);

  // Adds up what belongs to each place, at one moment. With a null `sites` it stays empty.
  class Tally {
   public:
    explicit Tally(const CallSites* sites);
    void AddObject(std::uint64_t slot, std::uint64_t requested_bytes);
    void AddPartlyFree(std::uint64_t slot, std::uint64_t requested_bytes, double bytes);
    // Those that hold most of the partly free bytes, the largest first.
    std::vector<HeapMap::CallSite> Sites() const;

   private:
    struct Sums {
      std::uint64_t samples = 0;
      double live_bytes = 0, partly_free_bytes = 0;
    };
    const CallSites* sites_;
    std::vector<Sums> by_stack_;
  };

 private:
  struct Stack {
    std::vector<std::string> frames;  // as text, innermost first
    std::size_t site_frame = 0;       // of them: the first that is no wrapper
    std::uint32_t module = 0;
    std::uint64_t offset = 0;         // of that frame
  };
  static constexpr std::uint32_t kNoStack = ~std::uint32_t{0};

  std::uint32_t StackOf(std::uint64_t slot) const { return slot < stack_of_slot_.size() ? stack_of_slot_[slot] : kNoStack; }
  // How many objects of the size one with a stack stands for.
  double Weight(std::uint64_t requested_bytes) const;

  double sample_bytes_ = 0;
  std::vector<Module> modules_;
  std::vector<Stack> stacks_;
  std::vector<std::pair<std::uint64_t, std::uint32_t>> sampled_;  // object and its stack, ascending
  std::size_t next_sampled_ = 0;
  std::uint64_t next_object_ = 0;
  std::vector<std::uint32_t> stack_of_slot_;
};

// Whether a function only passes on what its caller wants of the allocator: "tor_malloc_", "operator new(...)".
// `name` as Symbols tells it.
bool IsAllocationWrapper(const std::string& name, const std::string& module);

}  // namespace heaptape

#endif  // HEAPTAPE_REPLAYER_CALL_SITES_H_
