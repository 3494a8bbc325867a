#include "recorder/modules.h"

#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "recorder/process_info.h"

namespace heaptape {
namespace {

constexpr std::uint64_t kFreshNs = 100'000'000;
// CPU time that readings because of unknown addresses may take: this much, for how programs begin, and a hundredth of
// the time. A process that comes and goes with libraries is held up by each reading.
constexpr std::uint64_t kSpentAtOnceNs = 250'000'000;

std::uint64_t CpuTime() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(now.tv_nsec);
}

// Or in the kernel's "[vdso]" and its like, which have names as well.
bool InFile(const Mapping& mapping) { return !mapping.name.empty() && mapping.name.rfind("[anon", 0) != 0; }

}  // namespace

Modules::Modules(int maps) : maps_(maps) {
  Read(0);  // a short program may have ended before its first stack is read
}

Modules::~Modules() {
  if (maps_ >= 0) close(maps_);
}

const Mapping* Modules::Find(std::span<const Mapping> mappings, std::uint64_t address) {
  const auto after = std::upper_bound(mappings.begin(), mappings.end(), address,
                                      [](std::uint64_t value, const Mapping& mapping) { return value < mapping.start; });
  if (after == mappings.begin()) return nullptr;
  const Mapping& mapping = *std::prev(after);
  return address < mapping.end ? &mapping : nullptr;
}

void Modules::Read(std::uint64_t now_ns) {
  read_ns_ = now_ns;
  const std::uint64_t began = CpuTime();
  // A process that has ended has no mappings any more; the last ones still tell.
  if (maps_ < 0 || !ReadAll(maps_, buffer_)) return;
  std::vector<Mapping> before = std::exchange(mappings_, ParseSmaps(buffer_));
  std::erase_if(before, [](const Mapping& mapping) { return !InFile(mapping); });
  // Many readings may find a library gone; only one finds it there. Forgotten where there are too many of them.
  if (unloaded_.size() < 4 * mappings_.size() + 1000) {
    const std::size_t count = before.size();
    for (Mapping& mapping : unloaded_) {
      if (!Find({before.data(), count}, mapping.start)) before.push_back(std::move(mapping));
    }
    std::sort(before.begin(), before.end(), [](const Mapping& a, const Mapping& b) { return a.start < b.start; });
  }
  unloaded_ = std::move(before);
  spent_ns_ += CpuTime() - began;
}

bool Modules::MayReadForUnknown(std::uint64_t now_ns) const { return spent_ns_ <= kSpentAtOnceNs + (now_ns - first_ns_) / 100; }

std::uint32_t Modules::Number(const std::string& path) {
  const auto [place, inserted] = numbers_.try_emplace(path, static_cast<std::uint32_t>(seen_.size()));
  if (inserted) seen_.push_back({path.substr(path.rfind('/') + 1), path[0] == '/' ? BuildId(path) : ""});
  return place->second;
}

std::vector<StackFrame> Modules::Resolve(std::span<const std::uint64_t> addresses, std::uint64_t now_ns) {
  const bool unknown = std::any_of(addresses.begin(), addresses.end(), [this](std::uint64_t address) { return !Find(mappings_, address); });
  if (first_ns_ == 0) first_ns_ = now_ns;
  if (mappings_.empty() || now_ns - read_ns_ >= kFreshNs || (unknown && MayReadForUnknown(now_ns))) Read(now_ns);
  std::vector<StackFrame> frames;
  for (const std::uint64_t address : addresses) {
    const Mapping* mapping = Find(mappings_, address);
    if (!mapping) mapping = Find(unloaded_, address);
    if (mapping && InFile(*mapping)) {
      frames.push_back({Number(mapping->name), address - mapping->start + mapping->file_offset});
    } else {
      frames.push_back({Number(mapping ? "[anonymous]" : "[unknown]"), 0});
    }
  }
  return frames;
}

}  // namespace heaptape
