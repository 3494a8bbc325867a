#include "replayer/touch_plan.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "replayer/worker/protocol.h"

namespace heaptape {
namespace {

constexpr std::uint64_t kPage = worker::kPageBytes;
constexpr std::uint64_t kPagesOfHeaders = 2;
// From here on a block may be sparse, with most of it never written. Memory is sampled each second, and a smaller block may have
// come and been filled since the last sample.
constexpr std::uint64_t kSparseBytes = std::uint64_t{1} << 30;

std::uint64_t PageCount(std::span<const PageRange> ranges) {
  std::uint64_t pages = 0;
  for (const PageRange& range : ranges) pages += range.page_count;
  return pages;
}

std::uint64_t PagesOf(std::uint64_t bytes) { return (bytes + kPage - 1) / kPage; }

void AppendPage(std::vector<PageRange>& ranges, std::uint64_t page) {
  if (!ranges.empty() && std::uint64_t{ranges.back().first_page} + ranges.back().page_count == page) {
    ++ranges.back().page_count;
  } else {
    ranges.push_back({static_cast<std::uint32_t>(page), 1});
  }
}

// Pages of `a` that are not in `b`, and, from the lowest on, up to `more` pages of `a` that are.
std::vector<PageRange> AddedAnd(std::span<const PageRange> a, std::span<const PageRange> b, std::uint64_t more) {
  std::vector<PageRange> result;
  std::size_t k = 0;
  for (const PageRange& range : a) {
    for (std::uint64_t page = range.first_page; page < std::uint64_t{range.first_page} + range.page_count; ++page) {
      while (k < b.size() && std::uint64_t{b[k].first_page} + b[k].page_count <= page) ++k;
      const bool was_there = k < b.size() && b[k].first_page <= page;
      if (!was_there) {
        AppendPage(result, page);
      } else if (more != 0) {
        --more;
        AppendPage(result, page);
      }
    }
  }
  return result;
}

std::size_t ClassOf(std::uint64_t bytes) { return static_cast<std::size_t>(std::bit_width(bytes) - 1); }

}  // namespace

TouchPlan::TouchPlan(std::vector<TouchRecord> records, std::uint64_t slot_count, std::uint64_t most_resident_bytes)
    : most_resident_bytes_(std::max(most_resident_bytes, kSparseBytes)), records_(std::move(records)) {
  std::stable_sort(records_.begin(), records_.end(),
                   [](const TouchRecord& a, const TouchRecord& b) { return a.object < b.object; });
  for (std::uint32_t i = 0; i < records_.size(); ++i) {
    if (objects_.empty() || objects_.back().object != records_[i].object) objects_.push_back({records_[i].object, i, 0});
    ++objects_.back().count;
  }
  has_records_.resize(objects_.empty() ? 0 : slot_count);
  SetNextRecorded(0);
}

TouchPlan::Records TouchPlan::RecordsOf(const ObjectRecords& object) const {
  Records records;
  for (std::uint32_t i = object.first; i < object.first + object.count; ++i) {
    const TouchRecord& record = records_[i];
    if (record.when == TouchRecord::When::kFree) {
      records.at_free = &record;
    } else if (records.at_allocation == nullptr) {
      records.at_allocation = &record;
    }
  }
  // Pages that were there cannot all have gone while the block lived: the look came after the process, or the
  // mapping, had gone.
  if (records.at_free != nullptr && records.at_free->present.empty() &&
      (records.at_allocation == nullptr || !records.at_allocation->present.empty())) {
    records.at_free = nullptr;
  }
  return records;
}

void TouchPlan::SetNextRecorded(std::size_t index) {
  next_object_ = index;
  next_recorded_ = next_object_ < objects_.size() ? objects_[next_object_].object : ~std::uint64_t{0};
}

std::span<const PageRange> TouchPlan::Next(const Event& event, std::uint64_t object) {
  if (StartsObject(event)) {
    Records records;
    while (next_recorded_ < object) SetNextRecorded(next_object_ + 1);
    if (next_recorded_ == object) {
      records = RecordsOf(objects_[next_object_]);
      SetNextRecorded(next_object_ + 1);
    }
    if (event.slot < has_records_.size()) {
      has_records_[event.slot] = records.any();
      if (records.any()) live_[event.slot] = records;
    }
    return event.size < worker::kLargeBlockBytes ? std::span<const PageRange>() : Estimate(records, event.size, event.op);
  }
  // What a resized block holds up to its old size is there already, in place or copied; the worker writes
  // only beyond it. A program asks for more when it has something to put there: without a record, all of it.
  const bool resizes = (event.op == Op::kRealloc || event.op == Op::kReallocArray) && !event.failed();
  if (!resizes || event.size < worker::kLargeBlockBytes) return {};
  const TouchRecord* at_end = HasRecords(event.slot) ? live_[event.slot].at_free : nullptr;
  return at_end != nullptr ? std::span<const PageRange>(at_end->present) : FirstPages(PagesOf(event.size));
}

std::span<const PageRange> TouchPlan::FirstPages(std::uint64_t pages) {
  result_.clear();
  pages = std::min(pages, most_resident_bytes_ / kPage);
  if (pages != 0) result_.push_back({0, static_cast<std::uint32_t>(std::min<std::uint64_t>(pages, 0xffffffff))});
  return result_;
}

std::span<const PageRange> TouchPlan::Estimate(const Records& records, std::uint64_t bytes, Op op) {
  const std::uint64_t pages = PagesOf(bytes);
  Share& own_class = shares_[ClassOf(bytes)];
  if (records.at_free != nullptr) {
    // The page of the block's header is present even in a fresh block, and so may be that of its end, which
    // holds the next block's.
    const bool fresh = records.at_allocation != nullptr && PageCount(records.at_allocation->present) <= kPagesOfHeaders;
    if (fresh) {
      own_class.sum += std::min(1.0, static_cast<double>(PageCount(records.at_free->present)) / static_cast<double>(pages));
      ++own_class.count;
      return records.at_free->present;
    }
  }
  double sum = own_class.sum;
  std::uint64_t count = own_class.count;
  for (const Share& share : shares_) {
    if (own_class.count != 0) break;
    sum += share.sum;
    count += share.count;
  }
  // Nothing to judge by: a calloc is taken to be sparse, anything else to be full.
  const double share = count != 0 ? sum / static_cast<double>(count) : op == Op::kCalloc ? 0.0 : 1.0;
  const auto wanted = static_cast<std::uint64_t>(std::llround(share * static_cast<double>(pages)));
  if (records.at_free == nullptr || records.at_allocation == nullptr) return FirstPages(wanted);
  const std::span<const PageRange> at_free = records.at_free->present, at_allocation = records.at_allocation->present;
  const std::uint64_t certain = PageCount(AddedAnd(at_free, at_allocation, 0));
  const std::uint64_t wanted_here = std::min(wanted, PageCount(at_free));
  result_ = AddedAnd(at_free, at_allocation, wanted_here > certain ? wanted_here - certain : 0);
  return result_;
}

}  // namespace heaptape
