#include "traces/synth.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <vector>

namespace heaptape {
namespace {

// SplitMix64 (Steele, Lea, Flood 2014): one multiplication chain per draw, the same everywhere.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t Next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  // From 0 to n-1.
  std::uint64_t Below(std::uint64_t n) {
    return static_cast<std::uint64_t>((static_cast<unsigned __int128>(Next()) * n) >> 64);
  }

 private:
  std::uint64_t state_;
};

// A probability as the bound below which a draw of 64 bits falls.
class Chance {
 public:
  explicit Chance(double probability = 0)
      : always_(probability >= 1), bound_(always_ ? 0 : static_cast<std::uint64_t>(std::max(0.0, probability) * 0x1p64)) {}
  bool Draw(Random& random) const { return always_ || (bound_ != 0 && random.Next() < bound_); }

 private:
  bool always_;
  std::uint64_t bound_;
};

// Draws an index by weight in constant time (Walker 1977, built as by Vose 1991).
class WeightedIndex {
 public:
  WeightedIndex() = default;

  template <typename Weighted>
  explicit WeightedIndex(const std::vector<Weighted>& items) : cells_(items.size()) {
    double total = 0;
    for (const Weighted& item : items) total += item.weight;
    std::vector<double> rest(items.size());
    std::vector<std::uint32_t> small, large;
    for (std::uint32_t i = 0; i < items.size(); ++i) {
      rest[i] = items[i].weight / total * static_cast<double>(items.size());
      cells_[i] = {i, ~std::uint32_t{0}};
      (rest[i] < 1 ? small : large).push_back(i);
    }
    while (!small.empty() && !large.empty()) {
      const std::uint32_t less = small.back(), more = large.back();
      small.pop_back();
      cells_[less] = {more, static_cast<std::uint32_t>(rest[less] * 0x1p32)};
      rest[more] -= 1 - rest[less];
      if (rest[more] < 1) {
        large.pop_back();
        small.push_back(more);
      }
    }
    // What rounding left over is full, unless it has no weight at all.
    for (const std::uint32_t i : small) {
      if (items[i].weight == 0) cells_[i] = {LargestOf(items), 0};
    }
  }

  std::uint32_t Draw(Random& random) const {
    if (cells_.size() == 1) return 0;
    const std::uint64_t draw = random.Next();
    const auto i = static_cast<std::uint32_t>(((draw >> 32) * cells_.size()) >> 32);
    return static_cast<std::uint32_t>(draw) < cells_[i].bound ? i : cells_[i].other;
  }

 private:
  struct Cell {
    std::uint32_t other;
    std::uint32_t bound;  // below it the cell's own index, else `other`
  };

  template <typename Weighted>
  static std::uint32_t LargestOf(const std::vector<Weighted>& items) {
    std::uint32_t largest = 0;
    for (std::uint32_t i = 1; i < items.size(); ++i) {
      if (items[i].weight > items[largest].weight) largest = i;
    }
    return largest;
  }

  std::vector<Cell> cells_;
};

struct CompiledClass {
  explicit CompiledClass(const SynthClass& from)
      : low_bytes(from.low_bytes), size_count(from.high_bytes - from.low_bytes + 1), permanent(from.permanent_share),
        reallocated(from.realloc_share), calls(from.calls), lifetimes(from.lifetimes), targets(from.realloc_targets),
        call_of(from.calls), lifetime_of(from.lifetimes), target_of(from.realloc_targets) {}

  std::uint64_t low_bytes, size_count;
  Chance permanent, reallocated;
  std::vector<WeightedCall> calls;
  std::vector<WeightedRange> lifetimes;
  std::vector<WeightedClass> targets;
  WeightedIndex call_of, lifetime_of, target_of;
};

struct CompiledPhase {
  CompiledPhase(const SynthPhase& from, std::size_t first_class_index)
      : call_count(from.call_count), ns_per_call(1e9 / from.calls_per_second), first_class(first_class_index),
        cross_thread_free(from.cross_thread_free_share), class_of(from.classes), thread_of(from.threads) {
    std::size_t runnable = 0;
    for (const SynthThread& thread : from.threads) {
      runnable += thread.weight > 0;
      run_ends.emplace_back(1 / thread.run_calls);
    }
    alone = runnable == 1;
  }

  std::uint64_t call_count;
  double ns_per_call;
  std::size_t first_class;  // index of its first class among those of all phases
  Chance cross_thread_free;
  WeightedIndex class_of, thread_of;
  std::vector<Chance> run_ends;  // by thread
  bool alone;                    // only one thread ever runs
};

constexpr std::uint32_t kNone = ~std::uint32_t{0};

// The objects that will be freed, by the number of allocations after which: a hierarchical timing wheel
// (Varghese and Lauck 1987) of eight bits a level, whose lists run through one entry per slot.
class Generator {
 public:
  Generator(const SynthProfile& profile, const SynthOptions& options, TraceWriter& writer)
      : options_(options), writer_(writer), random_(options.seed), repeat_from_(profile.repeat_from) {
    std::size_t thread_count = 0;
    for (const SynthPhase& phase : profile.phases) {
      phases_.emplace_back(phase, classes_.size());
      for (const SynthClass& object_class : phase.classes) classes_.emplace_back(object_class);
      thread_count = std::max(thread_count, phase.threads.size());
    }
    due_.resize(thread_count);
    thread_numbers_.resize(thread_count, kNotStarted);
    for (auto& level : wheel_) level.fill(kNone);
  }

  absl::Status Run(std::uint64_t call_count) {
    // Whichever thread runs first is the process's first.
    for (std::size_t p = 0; calls_ < call_count; p = p + 1 < phases_.size() ? p + 1 : repeat_from_) {
      const absl::Status status = RunPhase(phases_[p], std::min(phases_[p].call_count, call_count - calls_));
      if (!status.ok()) return status;
    }
    return writer_.status();
  }

 private:
  static constexpr std::size_t kLevels = 6;  // lifetimes stop at 2^40, so 48 bits are plenty
  static constexpr std::uint32_t kNotStarted = ~std::uint32_t{0};

  struct Entry {
    std::uint64_t end;  // allocations done when the object's life ends
    std::uint32_t next;
    std::uint16_t class_index;
    std::uint16_t thread;  // that owns it, until it is due: then that ends it
  };

  struct List {
    std::uint32_t head = kNone, tail = kNone;
  };

  absl::Status RunPhase(const CompiledPhase& phase, std::uint64_t call_count) {
    phase_ = &phase;
    SwitchTo(phase.thread_of.Draw(random_));
    const double start_ns = time_ns_;
    const auto calls_per_mark = static_cast<std::uint64_t>(
        std::max(1.0, std::floor(static_cast<double>(options_.time_resolution_ns) / phase.ns_per_call)));
    std::uint64_t next_mark = calls_per_mark;
    for (std::uint64_t call = 1; call <= call_count; ++call) {
      if (due_[thread_].head != kNone) {
        EndNextLife();
      } else {
        StartObject();
      }
      if (call == next_mark) {
        writer_.Time(static_cast<std::uint64_t>(start_ns + static_cast<double>(call) * phase.ns_per_call));
        next_mark += calls_per_mark;
      }
      if ((call & 0x3ffff) == 0) {
        if (options_.cancelled && options_.cancelled->load()) return absl::CancelledError("stopped");
        if (options_.progress) options_.progress(calls_ + call);
        if (!writer_.status().ok()) return writer_.status();
      }
      if (!phase.alone && phase.run_ends[thread_].Draw(random_)) NextRun();
    }
    calls_ += call_count;
    time_ns_ = start_ns + static_cast<double>(call_count) * phase.ns_per_call;
    writer_.Time(static_cast<std::uint64_t>(time_ns_));
    return absl::OkStatus();
  }

  // A run that ends goes to another thread, however likely the present one is.
  void NextRun() {
    std::uint32_t next = thread_;
    for (int attempt = 0; attempt < 64 && next == thread_; ++attempt) next = phase_->thread_of.Draw(random_);
    SwitchTo(next);
  }

  void SwitchTo(std::uint32_t thread) {
    thread_ = thread;
    if (thread_numbers_[thread] != kNotStarted) return;
    thread_numbers_[thread] = threads_started_++;
    if (thread_numbers_[thread] == 0) return;  // the first thread is there from the start
    writer_.Append({.op = Op::kThreadStart, .flags = 0, .thread = ThreadNumber(), .slot = 0, .size = 0});
  }

  std::uint16_t ThreadNumber() const { return static_cast<std::uint16_t>(thread_numbers_[thread_]); }

  void StartObject() {
    const std::size_t index = phase_->first_class + phase_->class_of.Draw(random_);
    const CompiledClass& object_class = classes_[index];
    const WeightedCall& call = object_class.calls[object_class.call_of.Draw(random_)];
    const std::uint32_t slot = writer_.Allocate(call.op, DrawSize(object_class), call.alignment_bytes, ThreadNumber());
    if (slot >= entries_.size()) {
      if (slot == kNone) return;  // the writer has failed and says so by its status
      entries_.resize(slot + std::size_t{1});
    }
    Advance();
    BeginLife(slot, index);
  }

  std::uint64_t DrawSize(const CompiledClass& object_class) {
    return object_class.low_bytes + (object_class.size_count == 1 ? 0 : random_.Below(object_class.size_count));
  }

  void BeginLife(std::uint32_t slot, std::size_t class_index) {
    const CompiledClass& object_class = classes_[class_index];
    if (object_class.permanent.Draw(random_)) return;
    const WeightedRange& range = object_class.lifetimes[object_class.lifetime_of.Draw(random_)];
    const std::uint64_t lifetime = range.low == range.high ? range.low : range.low + random_.Below(range.high - range.low + 1);
    entries_[slot] = {clock_ + lifetime, kNone, static_cast<std::uint16_t>(class_index), static_cast<std::uint16_t>(thread_)};
    if (lifetime == 0) {
      BecomeDue(slot);
    } else {
      Insert(slot);
    }
  }

  void Insert(std::uint32_t slot) {
    Entry& entry = entries_[slot];
    const int level = (std::bit_width(entry.end ^ clock_) - 1) / 8;
    std::uint32_t& head = wheel_[level][(entry.end >> (8 * level)) & 255];
    entry.next = head;
    head = slot;
  }

  // One allocation further: whatever ends now becomes due.
  void Advance() {
    ++clock_;
    for (std::size_t level = 1; level < kLevels && (clock_ & ((std::uint64_t{1} << (8 * level)) - 1)) == 0; ++level) {
      std::uint32_t slot = std::exchange(wheel_[level][(clock_ >> (8 * level)) & 255], kNone);
      while (slot != kNone) {
        const std::uint32_t next = entries_[slot].next;
        if (entries_[slot].end == clock_) {
          BecomeDue(slot);
        } else {
          Insert(slot);
        }
        slot = next;
      }
    }
    std::uint32_t slot = std::exchange(wheel_[0][clock_ & 255], kNone);
    while (slot != kNone) {
      const std::uint32_t next = entries_[slot].next;
      BecomeDue(slot);
      slot = next;
    }
  }

  void BecomeDue(std::uint32_t slot) {
    Entry& entry = entries_[slot];
    if (phase_->cross_thread_free.Draw(random_)) entry.thread = static_cast<std::uint16_t>(phase_->thread_of.Draw(random_));
    List& list = due_[entry.thread];
    entry.next = kNone;
    if (list.head == kNone) {
      list.head = slot;
    } else {
      entries_[list.tail].next = slot;
    }
    list.tail = slot;
  }

  void EndNextLife() {
    List& list = due_[thread_];
    const std::uint32_t slot = list.head;
    list.head = entries_[slot].next;
    const CompiledClass& object_class = classes_[entries_[slot].class_index];
    if (!object_class.reallocated.Draw(random_)) {
      writer_.Free(slot, ThreadNumber());
      return;
    }
    // Its targets are numbered within its own phase, which may be over.
    const std::size_t target = FirstClassOfPhaseWith(entries_[slot].class_index) +
                               object_class.targets[object_class.target_of.Draw(random_)].class_index;
    writer_.Reallocate(Op::kRealloc, slot, DrawSize(classes_[target]), ThreadNumber());
    BeginLife(slot, target);
  }

  std::size_t FirstClassOfPhaseWith(std::size_t class_index) const {
    const auto after = std::upper_bound(phases_.begin(), phases_.end(), class_index,
                                        [](std::size_t index, const CompiledPhase& phase) { return index < phase.first_class; });
    return std::prev(after)->first_class;
  }

  const SynthOptions& options_;
  TraceWriter& writer_;
  Random random_;
  std::size_t repeat_from_;
  std::vector<CompiledPhase> phases_;
  std::vector<CompiledClass> classes_;  // of all phases
  const CompiledPhase* phase_ = nullptr;

  std::vector<Entry> entries_;  // by slot
  std::array<std::array<std::uint32_t, 256>, kLevels> wheel_;
  std::vector<List> due_;  // by thread
  std::vector<std::uint32_t> thread_numbers_;
  std::uint32_t threads_started_ = 0;
  std::uint32_t thread_ = 0;

  std::uint64_t clock_ = 0;  // objects started
  std::uint64_t calls_ = 0;
  double time_ns_ = 0;
};

}  // namespace

absl::Status WriteSynthetic(const SynthProfile& profile, const SynthOptions& options, TraceWriter& writer) {
  const absl::Status status = CheckProfile(profile);
  if (!status.ok()) return status;
  return Generator(profile, options, writer).Run(options.call_count ? options.call_count : profile.call_count());
}

}  // namespace heaptape
