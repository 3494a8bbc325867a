// Turns events into a block's columns and back (FORMAT.md, "Events").
//
// Encoder and decoder keep the same state from block to block: the list of live objects, where in it the
// last free and realloc were, and a dictionary of what is allocated. Both start anew (or from a
// checkpoint) at a block that says so. State is 8 bytes a live object (the encoder's: 24), plus the dictionary (at most 2 MiB).

#ifndef HEAPTAPE_TRACES_CODEC_H_
#define HEAPTAPE_TRACES_CODEC_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "traces/event.h"
#include "traces/huge_table.h"
#include "traces/live_list.h"
#include "traces/live_object.h"

namespace heaptape {

// What an allocation or realloc asks for, in one word: size << 10 | log2 alignment << 4 | kind.
using RequestKey = std::uint64_t;
inline constexpr std::uint64_t kMaxKeySize = (std::uint64_t{1} << 54) - 1;
inline constexpr unsigned kInPlaceRealloc = 10, kInPlaceReallocArray = 11;  // kinds beside the ops

inline constexpr RequestKey MakeKey(unsigned kind, unsigned log2_alignment, std::uint64_t size) {
  return size << 10 | log2_alignment << 4 | kind;
}
// False for kinds that no writer makes.
bool IsValidKey(RequestKey key);
// The event that asks for it: op, flags and size, thread and slot 0.
Event EventOfKey(RequestKey key);

// The columns of a block, in the order in which they lie in the file.
enum Column : unsigned {
  kTokens,        // one byte an event that is not kTime
  kWide,          // dictionary numbers of kTokenWide, two bytes each
  kWideHigh,      // format 1 only: their high bytes, kWide holding the low ones
  kNewKinds,      // kTokenNew: kind, then the alignment's log2
  kNewSizes,      // ... and size, varint
  kReallocPlaces, // one byte an in-place realloc: like a free's token, or kPlaceLastRealloc
  kFarPlaces,     // one byte a kPlaceFar: see kFarGaps
  kEscapes,       // slots of frees and reallocs no place names, zigzag from the last one (format 1: varint)
  kRare,          // kTokenRare: op, flags, slot + 1, size
  kThreadRuns,    // run length, thread
  kMarkEvents,    // events since the last time mark
  kMarkSteps,     // steps since the last time mark
  kColumnCount
};

// The first number of a block's columns: flags.
inline constexpr unsigned kDictionaryCleared = 1;
inline constexpr unsigned kCodingSecond = 2;  // format 2; without it the columns are coded as in format 1

// Tokens below kTokenRare free the object at that place of the list.
inline constexpr unsigned kPlaceAfter = 0;          // + n: n further than the successor of the last gap
inline constexpr unsigned kPlaceBefore = 8;         // + n: n before the predecessor of the last gap
inline constexpr unsigned kPlaceNewest = 16;        // + n: n-th before the newest
inline constexpr unsigned kPlaceFar = 30;           // kFarPlaces says where
inline constexpr unsigned kPlaceEscape = 31;
// In kFarPlaces: 2 i + side for the i-th older gap (side 0: its successor, 1: its predecessor), then
// kFarSteps + 2 n + side for 8 + n steps from the last gap.
inline constexpr unsigned kFarGaps = 8;
inline constexpr unsigned kFarSteps = 2 * kFarGaps;
inline constexpr unsigned kFarReach = 8 + (256 - kFarSteps) / 2;  // steps beyond which a place is not far but escaped
inline constexpr unsigned kPlaceLastRealloc = 32;   // in kReallocPlaces only
inline constexpr unsigned kTokenRare = 32;
inline constexpr unsigned kTokenNew = 33;
inline constexpr unsigned kTokenWide = 34;
inline constexpr unsigned kTokenFirstHot = 35;
inline constexpr unsigned kHotCount = 256 - kTokenFirstHot;
inline constexpr std::uint32_t kMaxDictionary = 1u << 16;

// Every key seen, numbered as it comes; the most used ones have a token of their own.
class Dictionary {
 public:
  void Clear();
  std::uint32_t size() const { return static_cast<std::uint32_t>(entries_.size()); }
  bool full() const { return size() >= kMaxDictionary; }
  RequestKey key(std::uint32_t id) const { return entries_[id].key; }
  std::uint32_t hot(unsigned index) const { return hot_[index]; }
  unsigned hot_count() const { return hot_count_; }
  // The token of an entry, or kTokenWide.
  unsigned token(std::uint32_t id) const { return entries_[id].token; }
  // Takes a free token while there are some. The dictionary must not be full.
  std::uint32_t Add(RequestKey key);
  void Count(std::uint32_t id, std::uint32_t times) { entries_[id].score += times; }
  // At the end of each block, on both sides: gives the tokens to the most used entries and halves scores.
  void Rank();

 private:
  struct Entry {
    RequestKey key;
    std::uint32_t score;
    std::uint32_t token;
  };
  std::vector<Entry> entries_;
  std::array<std::uint32_t, kHotCount> hot_{};
  unsigned hot_count_ = 0;
  std::vector<std::uint32_t> cold_, warm_;  // scratch of Rank()
};

// The part of the state that both sides keep alike. A gap is the place between two live objects where one
// was freed, given as the node before it.
struct CodecState {
  using Node = LiveList::Node;

  LiveList objects;
  Node gap = LiveList::kEnd;                // of the last free
  std::array<Node, kFarGaps> old_gaps{};    // those that were left for elsewhere, latest first
  Node last_realloc = LiveList::kEnd;       // kEnd where it has been freed
  std::uint32_t last_escape = 0;            // slot
  Dictionary dictionary;

  // Forgets all but the live objects.
  void ClearContext() {
    gap = last_realloc = LiveList::kEnd;
    last_escape = 0;
    old_gaps = {};
    dictionary.Clear();
  }

  // kEnd where there is none. `place` is below kPlaceFar.
  Node AtPlace(unsigned place) const {
    if (place == kPlaceAfter) return objects.next(gap);
    if (place == kPlaceBefore) return gap;
    if (place >= kPlaceNewest) return Back(objects.newest(), place - kPlaceNewest);
    return place > kPlaceBefore ? Back(gap, place - kPlaceBefore) : Forward(objects.next(gap), place);
  }
  Node AtFarPlace(unsigned far) const {
    const Node from = far < kFarSteps ? old_gaps[far / 2] : gap;
    const unsigned steps = far < kFarSteps ? 0 : 8 + (far - kFarSteps) / 2;
    return far & 1 ? Back(from, steps) : Forward(objects.next(from), steps);
  }
  // `place` and `far` are how the object was named.
  void Remove(Node node, unsigned place, unsigned far) {
    if (place != kPlaceAfter && place != kPlaceBefore) {
      // The gap that is now gone to is no old one any more; the one that is left takes its rank.
      unsigned rank = place == kPlaceFar && far < kFarSteps ? far / 2 : kFarGaps - 1;
      for (; rank > 0; --rank) old_gaps[rank] = old_gaps[rank - 1];
      old_gaps[0] = gap;
    }
    // A copy, which no store into old_gaps can change: so the compiler compares four of them at a time.
    const Node left = objects.prev(node);
    for (Node& old : old_gaps) old = old == node ? left : old;
    gap = left;
    if (node == last_realloc) last_realloc = LiveList::kEnd;
    objects.Remove(node);
  }

 private:
  Node Forward(Node node, unsigned steps) const {
    for (; steps > 0; --steps) node = objects.next(node);
    return node;
  }
  Node Back(Node node, unsigned steps) const {
    for (; steps > 0; --steps) node = objects.prev(node);
    return node;
  }
};

class EventEncoder {
 public:
  EventEncoder();

  // `log2_alignment` 0 for none. Returns the slot.
  std::uint32_t Start(Op op, unsigned log2_alignment, std::uint64_t size, std::uint16_t thread);
  void Free(std::uint32_t slot, std::uint16_t thread);
  void Reallocate(Op op, std::uint32_t slot, std::uint64_t size, std::uint16_t thread);
  void Rare(const Event& event);
  void Mark(std::uint64_t steps);  // since the last mark

  // Hints for a slot that is in use, ahead of its Free(): PrefetchNeighbours() some events after Prefetch().
  void Prefetch(std::uint32_t slot) const {
    state_.objects.Prefetch(slot + 1);
    __builtin_prefetch(&objects_[slot]);
  }
  void PrefetchNeighbours(std::uint32_t slot) const {
    if (!IsLive(slot)) return;
    state_.objects.PrefetchNeighbours(slot + 1);
    if (const LiveList::Node before = state_.objects.prev(slot + 1); before != LiveList::kEnd) __builtin_prefetch(&objects_[before - 1]);
  }

  std::size_t event_count() const { return columns_[kTokens].size() + mark_count_; }
  bool IsLive(std::uint32_t slot) const { return state_.objects.IsLive(slot + 1); }
  const LiveList& objects() const { return state_.objects; }
  // Of a slot that is in use.
  const LiveObject& object(std::uint32_t slot) const { return objects_[slot]; }
  std::uint64_t object_count() const { return object_count_; }  // ever started

  // Ends the block: the columns' lengths as varints, then the columns, each to be compressed by itself.
  // Valid until the next event.
  const std::vector<std::uint8_t>& FinishLengths();
  std::span<const std::uint8_t> column(unsigned index) const { return columns_[index]; }
  // Begins the next block; `restart` forgets the context (a checkpoint has been written).
  void NextBlock(bool restart);

 private:
  void Request(RequestKey key, std::uint16_t thread);
  std::uint64_t Number(LiveList::Node node) const { return objects_[node - 1].number(); }
  // How a live object is named; sets `far` for kPlaceFar.
  unsigned Place(LiveList::Node node, unsigned& far);
  void PutPlace(unsigned place, unsigned far, std::uint32_t slot);
  void Token(unsigned token, std::uint16_t thread) {
    columns_[kTokens].push_back(static_cast<std::uint8_t>(token));
    if (thread != thread_) SwitchThread(thread);
    ++run_;
  }
  void SwitchThread(std::uint16_t thread);
  std::uint32_t* Find(RequestKey key);
  void GrowIndex();
  void ClearIndex();

  CodecState state_;
  static constexpr unsigned kLuck = 64;
  unsigned luck_ = kLuck;        // so many walks to objects born long before or after may find nothing in a row
  std::uint32_t unwalked_ = 0;
  HugeTable<LiveObject> objects_;  // by slot
  std::uint64_t object_count_ = 0;
  std::array<std::vector<std::uint8_t>, kColumnCount> columns_;
  std::vector<std::uint8_t> lengths_;
  std::size_t mark_count_ = 0;
  std::size_t since_mark_ = 0;   // tokens at the last mark
  std::uint32_t thread_ = 0;
  std::uint32_t run_ = 0;
  bool dictionary_cleared_ = false;
  // Open addressing from key to dictionary number + 1.
  std::vector<std::uint64_t> index_keys_;
  std::vector<std::uint32_t> index_ids_;
};

class EventDecoder {
 public:
  // Decodes one block's raw bytes; events() are then its events. DataLoss without position where the bytes
  // make no sense: events() are then those before that place, the live objects are as after these, and
  // the next block must be a restart.
  absl::Status Decode(std::span<const std::uint8_t> raw, std::uint64_t event_count, std::uint64_t start_step,
                      std::uint64_t resolution_ns);
  std::span<const Event> events() const { return std::span(events_).first(event_count_); }
  // Fresh context; the live objects stay as they are. objects() may then be set from a checkpoint.
  void Restart() { state_.ClearContext(); hot_templates_ = {}; templates_.clear(); }
  LiveList& objects() { return state_.objects; }
  // Threads that are alive after the decoded events; the first is from the beginning.
  std::vector<bool>& threads() { return threads_; }

 private:
  LiveList::Node Escaped(std::uint64_t number, bool second_coding);

  CodecState state_;
  std::array<Event, 256> hot_templates_{};  // by token
  std::vector<Event> templates_;            // by dictionary number
  std::vector<Event> events_;               // as long as the longest block
  std::size_t event_count_ = 0;
  std::vector<std::uint32_t> wide_;         // the block's dictionary numbers
  std::vector<bool> threads_ = std::vector<bool>(1, true);
};

}  // namespace heaptape

#endif  // HEAPTAPE_TRACES_CODEC_H_
