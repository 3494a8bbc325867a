// An allocator for large tables that are read at random: from some MiB on they lie in huge pages where the kernel gives
// them (anything but `never` in transparent_hugepage/enabled). A look at another place then seldom waits for the page tables,
// which in a virtual machine costs as much as the memory itself. A table takes at most one huge page more than it fills.

#ifndef HEAPTAPE_TRACES_HUGE_PAGES_H_
#define HEAPTAPE_TRACES_HUGE_PAGES_H_

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

namespace heaptape {

template <typename T>
class HugePageAllocator {
 public:
  using value_type = T;

  HugePageAllocator() = default;
  template <typename U>
  HugePageAllocator(const HugePageAllocator<U>&) {}

  T* allocate(std::size_t count) {
    if (count > ~std::size_t{0} / 2 / sizeof(T)) throw std::bad_array_new_length();
    const std::size_t bytes = count * sizeof(T);
    if (bytes < kWorthIt) return static_cast<T*>(::operator new(bytes));
    // As much more as moves the start to where a huge page begins; the rest goes back.
    const std::size_t whole = Whole(bytes);
    void* const mapped = mmap(nullptr, whole + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) throw std::bad_alloc();
    const auto from = reinterpret_cast<std::uintptr_t>(mapped);
    const std::uintptr_t start = (from + kHugePage - 1) / kHugePage * kHugePage;
    if (start != from) munmap(mapped, start - from);
    if (const std::size_t rest = from + kHugePage - start; rest != 0) munmap(reinterpret_cast<void*>(start + whole), rest);
    madvise(reinterpret_cast<void*>(start), whole, MADV_HUGEPAGE);
    return reinterpret_cast<T*>(start);
  }
  void deallocate(T* table, std::size_t count) {
    const std::size_t bytes = count * sizeof(T);
    if (bytes < kWorthIt) {
      ::operator delete(table);
    } else {
      munmap(table, Whole(bytes));
    }
  }

  template <typename U>
  bool operator==(const HugePageAllocator<U>&) const {
    return true;
  }

 private:
  static_assert(alignof(T) <= __STDCPP_DEFAULT_NEW_ALIGNMENT__);
  static constexpr std::size_t kHugePage = 2 << 20;
  static constexpr std::size_t kWorthIt = 2 * kHugePage;
  static constexpr std::size_t Whole(std::size_t bytes) { return (bytes + kHugePage - 1) / kHugePage * kHugePage; }
};

template <typename T>
using HugeVector = std::vector<T, HugePageAllocator<T>>;

}  // namespace heaptape

#endif  // HEAPTAPE_TRACES_HUGE_PAGES_H_
