// A table by number that only grows, for what is known of each live object.
//
// It takes the memory of the elements that were written and no more: new elements are zero without being touched, and growing
// moves pages instead of copying, so that there never is a second table beside the first. From some MiB on it lies in huge
// pages (huge_pages.h) and then takes at most one of them more than it fills. Growing moves the elements; bad_alloc where the
// system has no address space left.

#ifndef HEAPTAPE_TRACES_HUGE_TABLE_H_
#define HEAPTAPE_TRACES_HUGE_TABLE_H_

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

namespace heaptape {

template <typename T>
class HugeTable {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

 public:
  HugeTable() = default;
  HugeTable(HugeTable&& other) noexcept { *this = std::move(other); }
  HugeTable& operator=(HugeTable&& other) noexcept {
    std::swap(elements_, other.elements_);
    std::swap(size_, other.size_);
    std::swap(mapped_bytes_, other.mapped_bytes_);
    return *this;
  }
  ~HugeTable() {
    if (elements_ != nullptr) munmap(static_cast<void*>(elements_), mapped_bytes_);
  }

  std::size_t size() const { return size_; }
  T& operator[](std::size_t index) { return elements_[index]; }
  const T& operator[](std::size_t index) const { return elements_[index]; }
  T* begin() { return elements_; }
  T* end() { return elements_ + size_; }
  const T* begin() const { return elements_; }
  const T* end() const { return elements_ + size_; }

  // Makes it at least that long.
  void GrowTo(std::size_t size) {
    if (size <= size_) return;
    if (size > ~std::size_t{0} / 4 / sizeof(T)) throw std::bad_array_new_length();
    if (size * sizeof(T) > mapped_bytes_) Map(std::max(size * sizeof(T), 2 * mapped_bytes_));
    size_ = size;
  }
  // The element of that number; the table grows to hold it.
  T& At(std::size_t index) {
    if (index >= size_) GrowTo(index + 1);
    return elements_[index];
  }
  HugeTable Copy() const {
    HugeTable copy;
    copy.GrowTo(size_);
    if (size_ != 0) std::memcpy(static_cast<void*>(copy.elements_), elements_, size_ * sizeof(T));
    return copy;
  }

 private:
  static constexpr std::size_t kPage = 4096, kHugePage = 2 << 20;

  void Map(std::size_t bytes) {
    const std::size_t unit = bytes < 2 * kHugePage ? kPage : kHugePage;
    const std::size_t whole = (bytes + unit - 1) / unit * unit;
    // As much more as moves the start to where a unit begins; the rest goes back.
    void* const mapped = mmap(nullptr, whole + unit, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) throw std::bad_alloc();
    const auto from = reinterpret_cast<std::uintptr_t>(mapped);
    const std::uintptr_t start = (from + unit - 1) / unit * unit;
    if (start != from) munmap(mapped, start - from);
    if (const std::size_t rest = from + unit - start; rest != 0) munmap(reinterpret_cast<void*>(start + whole), rest);
    auto* const place = reinterpret_cast<void*>(start);
    if (elements_ != nullptr &&
        mremap(static_cast<void*>(elements_), mapped_bytes_, whole, MREMAP_MAYMOVE | MREMAP_FIXED, place) == MAP_FAILED) {
      munmap(place, whole);
      throw std::bad_alloc();
    }
    if (unit == kHugePage) madvise(place, whole, MADV_HUGEPAGE);
    elements_ = static_cast<T*>(place);
    mapped_bytes_ = whole;
  }

  T* elements_ = nullptr;
  std::size_t size_ = 0;
  std::size_t mapped_bytes_ = 0;
};

}  // namespace heaptape

#endif  // HEAPTAPE_TRACES_HUGE_TABLE_H_
