// Three threads that allocate, hand blocks to one another and free them: the same calls at every run.
// Threads take turns in fixed order, so the order of events does not depend on the scheduler. Its live set swells and shrinks
// several times a second, and with it all that allocators give back some tenths of a second after it was freed: it ends when the
// set is at its largest, for on the way down memory at the end is a matter of the moment.

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { kThreads = 3, kTurns = 2340, kCallsPerTurn = 1500, kSlots = 60000 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int turn;
static char* blocks[kSlots];

static uint64_t Next(uint64_t* state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}

static void* Churn(void* argument) {
  const int self = (int)(intptr_t)argument;
  uint64_t state = 88172645463325252ull + (uint64_t)self;
  for (int i = 0; i < kTurns; ++i) {
    pthread_mutex_lock(&lock);
    while (turn % kThreads != self) pthread_cond_wait(&changed, &lock);
    // The live set swells, shrinks, and in the end swells.
    const int phase = i / 60 % 2;
    for (int k = 0; k < kCallsPerTurn; ++k) {
      const uint64_t chance = Next(&state);
      char** slot = &blocks[chance % kSlots];
      free(*slot);
      *slot = NULL;
      if (phase == 0 || chance >> 40 & 1) {
        const uint64_t kind = chance >> 20 & 255;
        const size_t bytes = kind < 200 ? 16 + (chance >> 32 & 127) : kind < 254 ? 200 + (chance >> 32 & 2047) : 20000 + (chance >> 32 & 32767);
        *slot = malloc(bytes);
        memset(*slot, 1, bytes);
      }
    }
    ++turn;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
  }
  return NULL;
}

int main(void) {
  pthread_t threads[kThreads];
  for (intptr_t i = 0; i < kThreads; ++i) pthread_create(&threads[i], NULL, Churn, (void*)i);
  for (int i = 0; i < kThreads; ++i) pthread_join(threads[i], NULL);
  return 0;
}
