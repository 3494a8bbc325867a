#include "replayer/call_sites.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "replayer/symbols.h"

namespace heaptape {
namespace {

constexpr std::size_t kSitesKept = 12;
constexpr std::size_t kFramesKept = 16;

}  // namespace

bool IsAllocationWrapper(const std::string& name, const std::string& module) {
  if (absl::StartsWith(module, "libc.so") || absl::StartsWith(module, "libstdc++.so")) return true;
  const std::string lower = absl::AsciiStrToLower(name.substr(0, name.find(" at ")));
  for (const char* part : {"alloc", "strdup", "strndup", "memdup", "operator new", "std::", "__gnu_cxx::"}) {
    if (absl::StrContains(lower, part)) return true;
  }
  return false;
}

absl::StatusOr<std::unique_ptr<CallSites>> CallSites::Read(TraceReader& reader, const std::vector<std::string>& symbol_folders) {
  const absl::StatusOr<std::vector<StackSample>> samples = reader.ReadStacks();
  if (!samples.ok()) return samples.status();
  if (samples->empty()) return nullptr;
  absl::StatusOr<std::vector<Module>> modules = reader.ReadModules();
  if (!modules.ok()) return modules.status();

  auto sites = std::make_unique<CallSites>();
  sites->modules_ = *std::move(modules);
  sites->sample_bytes_ = static_cast<double>(reader.info().stack_sample_bytes);
  Symbols symbols(symbol_folders);
  std::map<std::pair<std::uint32_t, std::uint64_t>, std::string> names;  // by module and offset
  std::map<std::vector<std::pair<std::uint32_t, std::uint64_t>>, std::uint32_t> known;
  for (const StackSample& sample : *samples) {
    std::vector<std::pair<std::uint32_t, std::uint64_t>> frames;
    for (const StackFrame& frame : sample.frames) frames.emplace_back(frame.module, frame.offset);
    const auto [place, is_new] = known.try_emplace(frames, static_cast<std::uint32_t>(sites->stacks_.size()));
    sites->sampled_.emplace_back(sample.object, place->second);
    if (!is_new) continue;
    Stack stack;
    bool found = false;
    for (std::size_t i = 0; i < frames.size(); ++i) {
      const auto& [number, offset] = frames[i];
      const Module module = number < sites->modules_.size() ? sites->modules_[number] : Module{"?", ""};
      const auto [name, unnamed] = names.try_emplace(frames[i]);
      // A frame is where its call returns to, which may already be the next function.
      if (unnamed) name->second = symbols.NameOf(module, offset - (offset > 0));
      if (!found && !IsAllocationWrapper(name->second, module.name)) {
        found = true;
        stack.site_frame = i;
      }
      stack.frames.push_back(name->second.empty() ? absl::StrCat(module.name, "+0x", absl::Hex(offset))
                                                  : absl::StrCat(name->second, " (", module.name, ")"));
    }
    if (!frames.empty()) std::tie(stack.module, stack.offset) = frames[stack.site_frame];
    sites->stacks_.push_back(std::move(stack));
  }
  // The last of several stacks of one object is the one that made it as large as it is.
  std::stable_sort(sites->sampled_.begin(), sites->sampled_.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  return sites;
}

void CallSites::Follow(std::span<const Event> events) {
  for (const Event& event : events) {
    if (!StartsObject(event)) continue;
    if (event.slot >= stack_of_slot_.size()) stack_of_slot_.resize(event.slot + std::size_t{1}, kNoStack);
    stack_of_slot_[event.slot] = kNoStack;
    for (; next_sampled_ < sampled_.size() && sampled_[next_sampled_].first <= next_object_; ++next_sampled_) {
      if (sampled_[next_sampled_].first == next_object_) stack_of_slot_[event.slot] = sampled_[next_sampled_].second;
    }
    ++next_object_;
  }
}

double CallSites::Weight(std::uint64_t requested_bytes) const {
  if (sample_bytes_ <= 0) return 1;
  return std::max(1.0, sample_bytes_ / std::max(static_cast<double>(requested_bytes), 1.0));
}

CallSites::Tally::Tally(const CallSites* sites) : sites_(sites) {
  if (sites != nullptr) by_stack_.resize(sites->stacks_.size());
}

void CallSites::Tally::AddObject(std::uint64_t slot, std::uint64_t requested_bytes) {
  const std::uint32_t stack = sites_ != nullptr ? sites_->StackOf(slot) : kNoStack;
  if (stack == kNoStack) return;
  ++by_stack_[stack].samples;
  by_stack_[stack].live_bytes += sites_->Weight(requested_bytes) * static_cast<double>(requested_bytes);
}

void CallSites::Tally::AddPartlyFree(std::uint64_t slot, std::uint64_t requested_bytes, double bytes) {
  const std::uint32_t stack = sites_ != nullptr ? sites_->StackOf(slot) : kNoStack;
  if (stack != kNoStack) by_stack_[stack].partly_free_bytes += sites_->Weight(requested_bytes) * bytes;
}

std::vector<HeapMap::CallSite> CallSites::Tally::Sites() const {
  struct Place {
    Sums sums;
    std::uint32_t heaviest = 0;
  };
  std::map<std::pair<std::uint32_t, std::uint64_t>, Place> places;  // by module and offset
  for (std::uint32_t i = 0; i < by_stack_.size(); ++i) {
    const Sums& sums = by_stack_[i];
    if (sums.samples == 0) continue;
    const Stack& stack = sites_->stacks_[i];
    const auto [found, is_new] = places.try_emplace({stack.module, stack.offset});
    Place& place = found->second;
    if (is_new || sums.partly_free_bytes > by_stack_[place.heaviest].partly_free_bytes) place.heaviest = i;
    place.sums.samples += sums.samples;
    place.sums.live_bytes += sums.live_bytes;
    place.sums.partly_free_bytes += sums.partly_free_bytes;
  }
  std::vector<HeapMap::CallSite> result;
  for (const auto& [where, place] : places) {
    const Stack& stack = sites_->stacks_[place.heaviest];
    HeapMap::CallSite site;
    if (where.first < sites_->modules_.size()) {
      site.module = sites_->modules_[where.first].name;
      site.build_id = sites_->modules_[where.first].build_id;
    }
    site.offset = where.second;
    site.name = stack.frames.empty() ? "a stack that could not be read" : stack.frames[stack.site_frame];
    site.samples = place.sums.samples;
    site.live_bytes = static_cast<std::uint64_t>(std::llround(place.sums.live_bytes));
    site.partly_free_bytes = static_cast<std::uint64_t>(std::llround(place.sums.partly_free_bytes));
    site.stack.assign(stack.frames.begin(), stack.frames.begin() + static_cast<std::ptrdiff_t>(std::min(stack.frames.size(), kFramesKept)));
    result.push_back(std::move(site));
  }
  std::sort(result.begin(), result.end(), [](const HeapMap::CallSite& a, const HeapMap::CallSite& b) {
    return std::tuple(b.partly_free_bytes, b.live_bytes, a.module, a.offset) < std::tuple(a.partly_free_bytes, a.live_bytes, b.module, b.offset);
  });
  if (result.size() > kSitesKept) result.resize(kSitesKept);
  return result;
}

}  // namespace heaptape
