/* Counts the events of a trace by kind: one line each, NAME COUNT. */

#include <heaptape/trace.h>
#include <inttypes.h>
#include <stdio.h>

int main(int argc, char** argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: count_calls TRACE\n");
    return 2;
  }
  heaptape_trace* trace;
  char message[HEAPTAPE_MESSAGE_BYTES];
  if (heaptape_open(argv[1], &trace, message) != HEAPTAPE_OK) {
    fprintf(stderr, "count_calls: %s\n", message);
    return 1;
  }
  uint64_t counts[256] = {0};
  const heaptape_batch* batch;
  heaptape_status status;
  while ((status = heaptape_next(trace, &batch)) == HEAPTAPE_OK && batch->event_count > 0) {
    if (batch->restored) continue;
    for (size_t i = 0; i < batch->event_count; ++i) ++counts[batch->events[i].operation];
  }
  if (status != HEAPTAPE_OK) fprintf(stderr, "count_calls: %s\n", heaptape_message(trace));
  for (int operation = 0; operation < 256; ++operation) {
    if (counts[operation] > 0) printf("%s %" PRIu64 "\n", heaptape_operation_name(operation), counts[operation]);
  }
  const char* damage;
  for (size_t i = 0; (damage = heaptape_damage(trace, i)) != NULL; ++i) fprintf(stderr, "count_calls: %s\n", damage);
  heaptape_close(trace);
  return status == HEAPTAPE_OK ? 0 : 1;
}
