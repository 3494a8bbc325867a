// Every operator new and delete of C++ once, each with a size of its own, then many in containers and threads, and
// one that throws. argv[1]: how many strings to make; argv[2]: throw.
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

static void Strings(int count) {
  std::map<int, std::string> strings;
  for (int i = 0; i < count; ++i) strings[i % 1000] = std::string(40 + i % 50, 'x');
}

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  const std::align_val_t alignment{256};
  operator delete(operator new(10007));
  operator delete[](operator new[](10009));
  operator delete(operator new(10037), std::size_t{10037});
  operator delete[](operator new[](10039), std::size_t{10039});
  operator delete(operator new(10061, std::nothrow), std::nothrow);
  operator delete[](operator new[](10067, std::nothrow), std::nothrow);
  operator delete(operator new(10240, alignment), alignment);
  operator delete[](operator new[](10496, alignment), alignment);
  operator delete(operator new(10752, alignment), std::size_t{10752}, alignment);
  operator delete[](operator new[](11008, alignment), std::size_t{11008}, alignment);
  operator delete(operator new(11264, alignment, std::nothrow), alignment, std::nothrow);
  operator delete[](operator new[](11520, alignment, std::nothrow), alignment, std::nothrow);
  operator delete(operator new(200003));
  operator delete(static_cast<void*>(nullptr));
  if (argc > 2) try {
    operator delete(operator new(std::size_t{1} << 62));
    return 3;
  } catch (const std::bad_alloc&) {
  }
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) threads.emplace_back(Strings, std::atoi(argv[1]));
  for (std::thread& thread : threads) thread.join();
  std::puts("done");
  return 0;
}
