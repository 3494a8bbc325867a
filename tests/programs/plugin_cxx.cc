// A plugin in C++ for a program in C. Its constructor waits, with the loader's lock held, for a thread that calls new.
// run() asks for more than there is and says whether that was thrown: 1, and 2 more where what new gave could be deleted.
#include <pthread.h>
#include <stdint.h>

#include <new>

namespace {

int* volatile made;

void* CallNew(void*) {
  made = new int(7);
  return nullptr;
}

__attribute__((constructor)) void WaitForThread() {
  pthread_t thread;
  if (pthread_create(&thread, nullptr, CallNew, nullptr) == 0) pthread_join(thread, nullptr);
}

}  // namespace

extern "C" int run() {
  int result = 0;
  volatile std::size_t much = PTRDIFF_MAX - 1;
  try {
    char* block = static_cast<char*>(operator new(much));
    block[0] = 1;
  } catch (const std::bad_alloc&) {
    result += 1;
  }
  if (made && *made == 7) result += 2;
  delete made;
  return result;
}
