#include "traces/codec.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "traces/format.h"

namespace heaptape {

using format::PutVarint;
using Node = LiveList::Node;

bool IsValidKey(RequestKey key) {
  const unsigned kind = key & 0xf;
  return kind <= kInPlaceReallocArray && kind != static_cast<unsigned>(Op::kFree);
}

Event EventOfKey(RequestKey key) {
  const unsigned kind = key & 0xf;
  auto flags = static_cast<std::uint8_t>(key >> 4 & 0x3f);
  Op op = static_cast<Op>(kind);
  if (kind == kInPlaceRealloc) {
    op = Op::kRealloc;
  } else if (kind == kInPlaceReallocArray) {
    op = Op::kReallocArray;
  } else if (op == Op::kRealloc || op == Op::kReallocArray) {
    flags |= Event::kFresh;
  }
  return Event{op, flags, 0, 0, key >> 10};
}

// --- dictionary ---

void Dictionary::Clear() {
  entries_.clear();
  hot_count_ = 0;
}

std::uint32_t Dictionary::Add(RequestKey key) {
  const std::uint32_t id = size();
  Entry entry{key, 0, kTokenWide};
  if (hot_count_ < kHotCount) {
    entry.token = kTokenFirstHot + hot_count_;
    hot_[hot_count_++] = id;
  }
  entries_.push_back(entry);
  return id;
}

void Dictionary::Rank() {
  if (entries_.size() > kHotCount) {
    const auto score = [this](std::uint32_t id) { return entries_[id].score; };
    std::uint32_t least = ~0u;
    for (const std::uint32_t id : hot_) least = std::min(least, score(id));
    warm_.clear();
    for (std::uint32_t id = 0; id < size(); ++id)
      if (entries_[id].token == kTokenWide && score(id) / 2 > least) warm_.push_back(id);
    if (!warm_.empty()) {
      std::sort(warm_.begin(), warm_.end(), [&](std::uint32_t a, std::uint32_t b) {
        return score(a) != score(b) ? score(a) > score(b) : a < b;
      });
      cold_.assign(hot_.begin(), hot_.end());
      std::sort(cold_.begin(), cold_.end(), [&](std::uint32_t a, std::uint32_t b) {
        return score(a) != score(b) ? score(a) < score(b) : a < b;
      });
      // An entry must be used twice as much as the one whose token it takes, so that tokens keep their
      // meaning and the compressor its context.
      for (std::size_t i = 0; i < warm_.size() && i < cold_.size() && score(warm_[i]) / 2 > score(cold_[i]); ++i) {
        Entry& up = entries_[warm_[i]];
        Entry& down = entries_[cold_[i]];
        up.token = down.token;
        down.token = kTokenWide;
        hot_[up.token - kTokenFirstHot] = warm_[i];
      }
    }
  }
  for (Entry& entry : entries_) entry.score /= 2;
}

// --- encoder ---

EventEncoder::EventEncoder() { ClearIndex(); }

void EventEncoder::ClearIndex() {
  index_keys_.assign(1024, 0);
  index_ids_.assign(1024, 0);
}

void EventEncoder::GrowIndex() {
  std::vector<std::uint64_t> keys(index_keys_.size() * 2);
  std::vector<std::uint32_t> ids(keys.size());
  index_keys_.swap(keys);
  index_ids_.swap(ids);
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (ids[i] == 0) continue;
    std::uint32_t* id = Find(keys[i]);
    index_keys_[static_cast<std::size_t>(id - index_ids_.data())] = keys[i];
    *id = ids[i];
  }
}

// The place of `key`'s number, or the empty one where it belongs.
std::uint32_t* EventEncoder::Find(RequestKey key) {
  const std::size_t mask = index_keys_.size() - 1;
  std::size_t at = (key * 0x9e3779b97f4a7c15u) >> 40 & mask;
  while (index_ids_[at] != 0 && index_keys_[at] != key) at = (at + 1) & mask;
  return &index_ids_[at];
}

void EventEncoder::Request(RequestKey key, std::uint16_t thread) {
  std::uint32_t* found = Find(key);
  if (*found != 0) {
    const std::uint32_t id = *found - 1;
    const unsigned token = state_.dictionary.token(id);
    Token(token, thread);
    if (token == kTokenWide) {
      columns_[kWide].push_back(static_cast<std::uint8_t>(id));
      columns_[kWide].push_back(static_cast<std::uint8_t>(id >> 8));
    }
    state_.dictionary.Count(id, 1);
    return;
  }
  Token(kTokenNew, thread);
  columns_[kNewKinds].push_back(static_cast<std::uint8_t>(key & 0xf));
  columns_[kNewKinds].push_back(static_cast<std::uint8_t>(key >> 4 & 0x3f));
  PutVarint(columns_[kNewSizes], key >> 10);
  if (state_.dictionary.full()) return;
  const std::uint32_t id = state_.dictionary.Add(key);
  *found = id + 1;
  index_keys_[static_cast<std::size_t>(found - index_ids_.data())] = key;
  if (state_.dictionary.size() * 2 > index_keys_.size()) GrowIndex();
}

std::uint32_t EventEncoder::Start(Op op, unsigned log2_alignment, std::uint64_t size, std::uint16_t thread) {
  if (size > kMaxKeySize) {
    Event event{op, static_cast<std::uint8_t>(log2_alignment), thread, 0, size};
    if (op == Op::kRealloc || op == Op::kReallocArray) event.flags |= Event::kFresh;
    Rare(event);
  } else {
    Request(MakeKey(static_cast<unsigned>(op), log2_alignment, size), thread);
  }
  const Node node = state_.objects.Push();
  objects_.At(node - 1) = LiveObject(object_count_++, op, log2_alignment, size);
  return node - 1;
}

// An object may have several names. The first of them in this order costs least behind zstd, as measured on recordings
// of a compiler, of Python and of a relay (codec_benchmark, bench/trace_sizes).
unsigned EventEncoder::Place(Node node, unsigned& far) {
  constexpr unsigned kYoung = 4;
  const LiveList& list = state_.objects;
  const Node after = list.next(state_.gap), before = state_.gap;
  Node newest = list.newest();
  unsigned young = 0;
  for (; young < kYoung; ++young, newest = list.prev(newest))
    if (newest == node) return kPlaceNewest + young;
  if (after == node) return kPlaceAfter;
  if (before == node) return kPlaceBefore;
  // Numbers tell the direction, and that it is not worth walking far: at most as many lie between.
  const auto distance = static_cast<std::int64_t>(Number(node) - Number(before != LiveList::kEnd ? before : after));
  const bool newer = distance > 0;
  constexpr std::int64_t kWorthWalking = 16 * kFarReach;
  const bool near = (newer ? distance : -distance) < kWorthWalking;
  Node at = newer ? after : before;
  unsigned steps = 1;
  for (; near && steps < 8; ++steps) {
    at = newer ? list.next(at) : list.prev(at);
    if (at == node) return (newer ? kPlaceAfter : kPlaceBefore) + steps;
  }
  for (; young < kPlaceFar - kPlaceNewest; ++young, newest = list.prev(newest))
    if (newest == node) return kPlaceNewest + young;
  for (unsigned i = 0; i < kFarGaps; ++i) {
    far = 2 * i;
    if (list.next(state_.old_gaps[i]) == node) return kPlaceFar;
    ++far;
    if (state_.old_gaps[i] == node) return kPlaceFar;
  }
  // Where large sets die in no order each step of a walk waits for memory, and none arrives: most are then left out.
  if (!near && luck_ == 0 && ++unwalked_ % 32 != 0) return kPlaceEscape;
  for (const unsigned reach = near ? kFarReach : 8; steps < reach; ++steps) {
    at = newer ? list.next(at) : list.prev(at);
    if (at != node) continue;
    if (!near) luck_ = kLuck;
    if (steps < 8) return (newer ? kPlaceAfter : kPlaceBefore) + steps;
    far = kFarSteps + 2 * (steps - 8) + (newer ? 0 : 1);
    return kPlaceFar;
  }
  if (!near && luck_ > 0) --luck_;
  return kPlaceEscape;
}

void EventEncoder::PutPlace(unsigned place, unsigned far, std::uint32_t slot) {
  if (place == kPlaceFar) columns_[kFarPlaces].push_back(static_cast<std::uint8_t>(far));
  if (place == kPlaceEscape) {
    PutVarint(columns_[kEscapes], format::ZigZag(std::int64_t{slot} - state_.last_escape));
    state_.last_escape = slot;
  }
}

void EventEncoder::Free(std::uint32_t slot, std::uint16_t thread) {
  const Node node = slot + 1;
  unsigned far = 0;
  const unsigned place = Place(node, far);
  Token(place, thread);
  PutPlace(place, far, slot);
  state_.Remove(node, place, far);
}

void EventEncoder::Reallocate(Op op, std::uint32_t slot, std::uint64_t size, std::uint16_t thread) {
  const Node node = slot + 1;
  // What it was aligned to is no longer known to hold.
  objects_[slot] = LiveObject(Number(node), op, 0, size);
  if (size > kMaxKeySize) {
    Rare(Event{op, 0, thread, slot, size});
    return;
  }
  Request(MakeKey(op == Op::kRealloc ? kInPlaceRealloc : kInPlaceReallocArray, 0, size), thread);
  unsigned far = 0;
  const unsigned place = node == state_.last_realloc ? kPlaceLastRealloc : Place(node, far);
  columns_[kReallocPlaces].push_back(static_cast<std::uint8_t>(place));
  PutPlace(place, far, slot);
  state_.last_realloc = node;
}

void EventEncoder::Rare(const Event& event) {
  Token(kTokenRare, event.thread);
  std::vector<std::uint8_t>& rare = columns_[kRare];
  rare.push_back(static_cast<std::uint8_t>(event.op));
  rare.push_back(event.flags);
  PutVarint(rare, event.slot + 1u);
  PutVarint(rare, event.size);
}

void EventEncoder::Mark(std::uint64_t steps) {
  PutVarint(columns_[kMarkEvents], columns_[kTokens].size() - since_mark_);
  PutVarint(columns_[kMarkSteps], steps);
  since_mark_ = columns_[kTokens].size();
  ++mark_count_;
}

void EventEncoder::SwitchThread(std::uint16_t thread) {
  // Called after the token was put down: the run that ends does not have it.
  if (run_ > 0) {
    PutVarint(columns_[kThreadRuns], run_);
    PutVarint(columns_[kThreadRuns], thread_);
  }
  thread_ = thread;
  run_ = 0;
}

const std::vector<std::uint8_t>& EventEncoder::FinishLengths() {
  SwitchThread(static_cast<std::uint16_t>(thread_));
  lengths_.clear();
  lengths_.push_back(kCodingSecond | (dictionary_cleared_ ? kDictionaryCleared : 0));
  for (const auto& column : columns_) PutVarint(lengths_, column.size());
  return lengths_;
}

void EventEncoder::NextBlock(bool restart) {
  for (auto& column : columns_) column.clear();
  mark_count_ = since_mark_ = 0;
  run_ = 0;
  dictionary_cleared_ = false;
  if (restart) {
    state_.ClearContext();
    ClearIndex();
  } else if (state_.dictionary.full()) {
    state_.dictionary.Clear();
    ClearIndex();
    dictionary_cleared_ = true;
  } else {
    state_.dictionary.Rank();
  }
}

// --- decoder ---

namespace {

// The event of `shape` on that thread and slot, in two stores.
inline void Put(Event* out, const Event& shape, std::uint16_t thread, std::uint32_t slot) {
  std::uint64_t head;
  std::memcpy(&head, &shape, sizeof head);
  head |= std::uint64_t{thread} << 16 | std::uint64_t{slot} << 32;
  std::memcpy(static_cast<void*>(out), &head, sizeof head);
  out->size = shape.size;
}

}  // namespace

Node EventDecoder::Escaped(std::uint64_t number, bool second_coding) {
  const std::uint64_t slot = second_coding ? state_.last_escape + static_cast<std::uint64_t>(format::UnZigZag(number)) : number;
  const Node node = slot < format::kMaxLiveObjects ? static_cast<Node>(slot) + 1 : LiveList::kEnd;
  if (!state_.objects.IsLive(node)) return LiveList::kEnd;
  state_.last_escape = node - 1;
  return node;
}

absl::Status EventDecoder::Decode(std::span<const std::uint8_t> raw, std::uint64_t event_count,
                                  std::uint64_t start_step, std::uint64_t resolution_ns) {
  const auto bad = [](const char* what) { return absl::DataLossError(what); };
  event_count_ = 0;
  format::Cursor in(raw);
  const std::uint64_t flags = in.Varint();
  if (flags > (kDictionaryCleared | kCodingSecond)) return bad("columns of an unknown coding");
  const bool second_coding = flags & kCodingSecond;
  std::array<std::uint64_t, kColumnCount> lengths;
  for (auto& length : lengths) length = in.Varint();
  std::array<std::span<const std::uint8_t>, kColumnCount> columns;
  for (unsigned i = 0; i < kColumnCount; ++i) columns[i] = in.Bytes(lengths[i]);
  if (!in.ok() || in.remaining() != 0) return bad("columns are longer than the block");
  const auto tokens = columns[kTokens];
  if (tokens.size() > event_count || event_count > format::kMaxBlockEvents) return bad("more events than stated");
  if (event_count - tokens.size() > columns[kMarkEvents].size()) return bad("fewer events than stated");

  if (flags & kDictionaryCleared) {
    state_.dictionary.Clear();
    templates_.clear();
    hot_templates_ = {};
  }

  // Whatever can be checked of a whole column is checked here, not at each event.
  std::array<std::uint32_t, 256> histogram{};
  for (const std::uint8_t token : tokens) ++histogram[token];
  const std::uint32_t wide_count = histogram[kTokenWide];
  if (columns[kWide].size() != (second_coding ? 2 : 1) * std::size_t{wide_count} ||
      columns[kWideHigh].size() != (second_coding ? 0 : wide_count) ||
      columns[kNewKinds].size() != 2u * histogram[kTokenNew])
    return bad("columns do not fit the tokens");
  Dictionary& dictionary = state_.dictionary;
  const std::uint32_t old_size = dictionary.size();
  // New entries are added here already, so the main loop meets complete tables. What a token means must
  // not depend on that: the encoder never uses an entry before it is new.
  format::Cursor new_sizes(columns[kNewSizes]);
  wide_.clear();
  for (std::uint32_t i = 0; i < histogram[kTokenNew]; ++i) {
    const std::uint64_t size = new_sizes.Varint();
    const unsigned kind = columns[kNewKinds][2 * i], alignment = columns[kNewKinds][2 * i + 1];
    if (size > kMaxKeySize || kind > 0xf || alignment > 0x3f) return bad("a size out of range");
    const RequestKey key = MakeKey(kind, alignment, size);
    if (!IsValidKey(key)) return bad("an unknown kind of request");
    templates_.push_back(EventOfKey(key));
    // A full dictionary takes no more; the template lies behind its end for this block alone.
    if (!dictionary.full()) {
      const std::uint32_t id = dictionary.Add(key);
      const unsigned token = dictionary.token(id);
      if (token != kTokenWide) hot_templates_[token] = templates_[id];
    }
  }
  if (!new_sizes.ok() || new_sizes.remaining() != 0) return bad("sizes do not fit the tokens");
  for (unsigned token = kTokenFirstHot + dictionary.hot_count(); token < 256; ++token)
    if (histogram[token] != 0) return bad("a token without an entry");
  for (unsigned i = 0; i < dictionary.hot_count(); ++i) {
    const std::uint32_t times = histogram[kTokenFirstHot + i];
    if (times != 0) dictionary.Count(dictionary.hot(i), times);
  }
  for (std::uint32_t i = 0; i < wide_count; ++i) {
    const std::uint32_t id = second_coding ? columns[kWide][2 * i] | std::uint32_t{columns[kWide][2 * i + 1]} << 8
                                           : columns[kWide][i] | std::uint32_t{columns[kWideHigh][i]} << 8;
    if (id >= dictionary.size()) return bad("a dictionary number out of range");
    dictionary.Count(id, 1);
    wide_.push_back(id);
  }

  LiveList& list = state_.objects;
  if (list.slot_count() + tokens.size() > format::kMaxLiveObjects) return bad("more live objects than supported");
  list.Reserve(tokens.size() + 1);
  if (events_.size() < event_count) events_.resize(event_count);
  Event* out = events_.data();
  const auto stop_at = [this](const Event* end, const char* what) {
    event_count_ = static_cast<std::size_t>(end - events_.data());
    return absl::DataLossError(what);
  };

  format::Cursor places(columns[kReallocPlaces]), far_places(columns[kFarPlaces]), escapes(columns[kEscapes]), rare(columns[kRare]),
      runs(columns[kThreadRuns]), mark_events(columns[kMarkEvents]), mark_steps(columns[kMarkSteps]);
  const std::uint32_t* wide = wide_.data();
  const Event* fresh = templates_.data() + old_size;
  std::size_t at = 0;
  std::size_t run_end = 0;
  std::uint16_t thread = 0;
  std::uint64_t step = start_step;
  const std::size_t token_count = tokens.size();
  std::size_t mark_at = mark_events.remaining() ? mark_events.Varint() : token_count + 1;
  std::size_t marks = 0;
  while (true) {
    if (at == mark_at) {
      if (++marks + token_count > event_count) return stop_at(out, "more time marks than stated");
      step += mark_steps.Varint();
      *out++ = Event{Op::kTime, 0, 0, 0, step * resolution_ns};
      const std::uint64_t more = mark_events.remaining() ? mark_events.Varint() : token_count + 1;
      mark_at = more > token_count ? token_count + 1 : at + more;
      continue;
    }
    if (at == token_count) break;
    if (at == run_end) {
      const std::uint64_t run = runs.Varint(), number = runs.Varint();
      if (run == 0 || run > token_count - at || number > 0xffff) return stop_at(out, "thread runs do not fit the tokens");
      run_end = at + run;
      thread = static_cast<std::uint16_t>(number);
    }
    const std::size_t stop = std::min(run_end, mark_at);
    for (; at < stop; ++at) {
      const unsigned token = tokens[at];
      if (token < kTokenRare) {
        unsigned far = 0;
        Node node;
        if (token < kPlaceFar) node = state_.AtPlace(token);
        else if (token == kPlaceFar) node = state_.AtFarPlace(far = far_places.U8());
        else node = Escaped(escapes.Varint(), second_coding);
        if (node == LiveList::kEnd) return stop_at(out, "a free of nothing");
        Put(out++, Event{Op::kFree, 0, 0, 0, 0}, thread, node - 1);
        state_.Remove(node, token, far);
        continue;
      }
      const Event* shape;
      if (token >= kTokenFirstHot) shape = &hot_templates_[token];
      else if (token == kTokenWide) shape = &templates_[*wide++];
      else if (token == kTokenNew) shape = fresh++;
      else {
        Event event;
        event.op = static_cast<Op>(rare.U8());
        event.flags = rare.U8();
        event.slot = static_cast<std::uint32_t>(rare.Varint()) - 1u;
        event.size = rare.Varint();
        event.thread = thread;
        if (!rare.ok() || static_cast<unsigned>(event.op) >= kOpCount || event.op == Op::kFree ||
            event.op == Op::kTime)
          return stop_at(out, "a rare event that makes no sense");
        const bool in_place = (event.op == Op::kRealloc || event.op == Op::kReallocArray) && !event.fresh();
        if (StartsObject(event)) event.slot = list.PushUnchecked() - 1;
        else if (in_place && (!event.failed() || event.slot != ~0u) && !list.IsLive(event.slot + 1))
          return stop_at(out, "a realloc of nothing");
        if (event.op == Op::kThreadStart || event.op == Op::kThreadEnd) {
          if (threads_.size() <= thread) threads_.resize(std::size_t{thread} + 1);
          threads_[thread] = event.op == Op::kThreadStart;
        }
        *out++ = event;
        continue;
      }
      std::uint32_t slot;
      if ((shape->op == Op::kRealloc || shape->op == Op::kReallocArray) && !shape->fresh()) {
        const unsigned place = places.U8();
        Node node = 0;
        if (place < kPlaceFar) node = state_.AtPlace(place);
        else if (place == kPlaceFar) node = state_.AtFarPlace(far_places.U8());
        else if (place == kPlaceLastRealloc) node = state_.last_realloc;
        else if (place == kPlaceEscape) node = Escaped(escapes.Varint(), second_coding);
        if (node == LiveList::kEnd || !places.ok()) return stop_at(out, "a realloc of nothing");
        slot = node - 1;
        state_.last_realloc = node;
      } else {
        slot = list.PushUnchecked() - 1;
      }
      Put(out++, *shape, thread, slot);
    }
  }
  if (marks + token_count != event_count || places.remaining() || far_places.remaining() || escapes.remaining() || rare.remaining() ||
      runs.remaining() || mark_events.remaining() || mark_steps.remaining() || !mark_steps.ok() || !escapes.ok() ||
      !far_places.ok())
    return stop_at(out, "columns do not fit the tokens");

  event_count_ = event_count;
  templates_.resize(dictionary.size());
  dictionary.Rank();
  for (unsigned i = 0; i < dictionary.hot_count(); ++i)
    hot_templates_[kTokenFirstHot + i] = templates_[dictionary.hot(i)];
  return absl::OkStatus();
}

}  // namespace heaptape
