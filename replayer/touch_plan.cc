#include "replayer/touch_plan.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "replayer/worker/protocol.h"

namespace heaptape {
namespace {

constexpr std::uint64_t kPage = worker::kPageBytes;

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

TouchPlan::TouchPlan(std::vector<TouchRecord> records, std::uint64_t slot_count) : records_(std::move(records)) {
  std::stable_sort(records_.begin(), records_.end(),
                   [](const TouchRecord& a, const TouchRecord& b) { return a.object < b.object; });
  for (std::uint32_t i = 0; i < records_.size(); ++i) {
    if (objects_.empty() || objects_.back().object != records_[i].object) objects_.push_back({records_[i].object, i, 0});
    ++objects_.back().count;
  }
  has_records_.resize(objects_.empty() ? 0 : slot_count);
  SetNextRecorded();
}

void TouchPlan::SetNextRecorded() {
  next_recorded_ = next_object_ < objects_.size() ? objects_[next_object_].object : ~std::uint64_t{0};
}

std::span<const PageRange> TouchPlan::Next(const Event& event, std::uint64_t object) {
  if (StartsObject(event)) {
    std::uint32_t first = 0, count = 0;
    if (next_object_ < objects_.size() && objects_[next_object_].object <= object) {
      while (next_object_ < objects_.size() && objects_[next_object_].object < object) ++next_object_;
      if (next_object_ < objects_.size() && objects_[next_object_].object == object) {
        first = objects_[next_object_].first;
        count = objects_[next_object_].count;
        ++next_object_;
      }
      SetNextRecorded();
    }
    if (event.slot < has_records_.size()) {
      if (has_records_[event.slot] && count == 0) {
        has_records_[event.slot] = false;
        live_.erase(event.slot);
      } else if (count != 0) {
        has_records_[event.slot] = true;
        live_[event.slot] = {first, first + count, event.size};
      }
    }
    if (event.size < worker::kLargeBlockBytes) return {};
    Live none = {0, 0, event.size};
    return Estimate(count != 0 ? live_[event.slot] : none, event.size, 0, event.op);
  }
  const bool resizes = (event.op == Op::kRealloc || event.op == Op::kReallocArray) && !event.failed();
  if (!resizes) return {};
  const bool known = HasRecords(event.slot);
  Live unknown = {0, 0, event.size};
  Live& live = known ? live_[event.slot] : unknown;
  const std::uint64_t old_bytes = std::exchange(live.bytes, event.size);
  if (event.size < worker::kLargeBlockBytes) return {};
  // Without records the former size is not known here: what a resized block grew by is then left alone,
  // but for what the allocator itself copies.
  if (!known) return {};
  return Estimate(live, event.size, old_bytes, event.op);
}

std::span<const PageRange> TouchPlan::Estimate(Live& live, std::uint64_t bytes, std::uint64_t old_bytes, Op op) {
  const TouchRecord* at_allocation = nullptr;
  const TouchRecord* at_free = nullptr;
  if (live.next < live.end && records_[live.next].when == TouchRecord::When::kAllocation) at_allocation = &records_[live.next++];
  if (live.next < live.end && records_[live.next].when == TouchRecord::When::kFree) at_free = &records_[live.next++];

  const std::uint64_t pages = PagesOf(bytes);
  Share& own_class = shares_[ClassOf(bytes)];
  const std::uint64_t present_before = at_allocation != nullptr ? PageCount(at_allocation->present) : 0;
  // The page of the block's header is present even in a fresh block, and a resized one keeps its old pages.
  const bool fresh = at_allocation != nullptr && present_before <= PagesOf(old_bytes) + 1;
  if (at_free != nullptr && fresh) {
    if (old_bytes == 0) {
      own_class.sum += std::min(1.0, static_cast<double>(PageCount(at_free->present)) / static_cast<double>(pages));
      ++own_class.count;
    }
    return at_free->present;
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
  const auto wanted = static_cast<std::uint64_t>(share * static_cast<double>(pages) + 0.5);
  if (at_free != nullptr && at_allocation != nullptr) {
    const std::uint64_t free_pages = PageCount(at_free->present);
    const std::uint64_t certain = PageCount(AddedAnd(at_free->present, at_allocation->present, 0));
    const std::uint64_t wanted_here = std::min(wanted, free_pages);
    result_ = AddedAnd(at_free->present, at_allocation->present, wanted_here > certain ? wanted_here - certain : 0);
    return result_;
  }
  result_.clear();
  if (wanted != 0) result_.push_back({0, static_cast<std::uint32_t>(std::min<std::uint64_t>(wanted, 0xffffffff))});
  return result_;
}

}  // namespace heaptape
