/* Reads heaptape traces, from C and whatever calls C. C++ has <heaptape/trace.hpp> over the same library.
 *
 *   heaptape_trace* trace;
 *   char message[HEAPTAPE_MESSAGE_BYTES];
 *   if (heaptape_open("guard.tape", &trace, message) != HEAPTAPE_OK) { fprintf(stderr, "%s\n", message); return 1; }
 *   const heaptape_batch* batch;
 *   while (heaptape_next(trace, &batch) == HEAPTAPE_OK && batch->event_count > 0)
 *     for (size_t i = 0; i < batch->event_count; ++i) use(&batch->events[i]);
 *   heaptape_close(trace);
 *
 * Units: sizes in bytes, times in nanoseconds since the recording began. Nothing in a file is trusted: whatever it
 * holds, these functions return. Text is UTF-8 and never NULL. One trace may be used by one thread at a time; different
 * traces are independent. Nothing is printed, and no exception leaves.
 *
 * Structures may grow at their end in later versions: look at them through the pointers you are given and keep copies of
 * members, not of structures. Those you are given arrays of, heaptape_event and heaptape_resident, stay as they are.
 */

#ifndef HEAPTAPE_TRACE_H_
#define HEAPTAPE_TRACE_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct heaptape_trace heaptape_trace;

typedef enum heaptape_status {
  HEAPTAPE_OK = 0,
  HEAPTAPE_NOT_FOUND = 1, /* no such file, or it may not be read */
  HEAPTAPE_NO_TRACE = 2,  /* not a trace, or one of a version this library does not know; a wrong argument */
  HEAPTAPE_DAMAGED = 3,   /* nothing of it can be read */
  HEAPTAPE_FAILED = 4     /* anything else, e.g. no memory: reading takes no more than three quarters of what is available */
} heaptape_status;

/* What happened. Values are those of the file format and never change; later versions may add to them. */
typedef enum heaptape_operation {
  HEAPTAPE_MALLOC = 0,
  HEAPTAPE_CALLOC = 1,        /* size is the product of both factors */
  HEAPTAPE_REALLOC = 2,       /* the object keeps its slot; with HEAPTAPE_FRESH it is realloc(NULL, size) */
  HEAPTAPE_REALLOCARRAY = 3,  /* likewise */
  HEAPTAPE_FREE = 4,
  HEAPTAPE_POSIX_MEMALIGN = 5,
  HEAPTAPE_ALIGNED_ALLOC = 6,
  HEAPTAPE_MEMALIGN = 7,
  HEAPTAPE_VALLOC = 8,
  HEAPTAPE_PVALLOC = 9,
  HEAPTAPE_TRIM = 10,         /* malloc_trim; size is the pad */
  HEAPTAPE_MALLOPT = 11,      /* slot is the parameter, size the value, both as int */
  HEAPTAPE_THREAD_START = 12,
  HEAPTAPE_THREAD_END = 13,   /* its number may be given to a later thread */
  HEAPTAPE_TIME = 14,         /* all events before happened before time `size` */
  HEAPTAPE_FORK = 15,
  HEAPTAPE_LOST = 16          /* `size` events are missing here */
} heaptape_operation;

#define HEAPTAPE_ALIGNMENT_MASK 0x3f /* of flags: log2 of the requested alignment; 0: none */
#define HEAPTAPE_CALL_FAILED 0x40    /* the call returned NULL; no slot is taken or changed */
#define HEAPTAPE_FRESH 0x80          /* realloc(NULL, size) */

/* Slots number the objects alive: a table as long as heaptape_summary.peak_live_objects holds them all. */
typedef struct heaptape_event {
  uint8_t operation; /* heaptape_operation */
  uint8_t flags;
  uint16_t thread; /* small number of the thread; the first is 0 */
  uint32_t slot;
  uint64_t size;
} heaptape_event;

/* What was recorded where. Empty text and 0 mean that it is not known. */
typedef struct heaptape_info {
  const char* program;
  const char* c_library;          /* "glibc 2.36" */
  const char* allocator;          /* recorded under: "glibc", "mimalloc" */
  const char* allocator_version;
  const char* allocator_build_id;
  const char* kernel;
  const char* heaptape_version;   /* that wrote the trace */
  uint64_t memory_bytes;          /* of the machine */
  uint64_t start_unix_seconds;
  uint64_t time_resolution_ns;
  uint32_t cpu_count;
  uint32_t page_bytes;
  uint64_t segment_start_ns;      /* after the recording's start begins this part of it; its times count from there */
  uint64_t segment_number;        /* 1, 2, ... where the recording is in several files */
} heaptape_info;

/* Known without reading the events. */
typedef struct heaptape_summary {
  uint64_t file_bytes;
  uint64_t event_count;
  uint64_t object_count;
  uint64_t peak_live_objects;
  uint64_t peak_live_bytes;
  uint64_t duration_ns;
  uint64_t peak_threads;
  uint64_t lost_events;  /* missing: damaged, or lost while recording */
  int complete;          /* the recording was finished in good order */
  const char* digest;    /* 32 hex digits, the same for the same content */
} heaptape_summary;

/* Valid until the next call of heaptape_next, heaptape_seek, heaptape_seek_time or heaptape_close. */
typedef struct heaptape_batch {
  const heaptape_event* events;
  size_t event_count;      /* 0: the end of the trace */
  uint64_t first_event;    /* number of events before */
  uint64_t start_time_ns;
  uint64_t end_time_ns;
  /* These events were not recorded here: they bring back what was alive, after damage or heaptape_seek. */
  int restored;
} heaptape_batch;

/* The recorded process's memory, as its kernel told it. */
typedef struct heaptape_resident {
  uint64_t time_ns;
  uint64_t event_number; /* events before the sample, up to the last time mark */
  uint64_t rss_bytes;
  uint64_t anonymous_bytes;
  uint64_t non_heap_bytes; /* of anonymous_bytes */
  uint64_t peak_rss_bytes;
} heaptape_resident;

#define HEAPTAPE_MESSAGE_BYTES 512

/* Opens a file and checks each block's checksum. On failure *trace is NULL and `message`, of HEAPTAPE_MESSAGE_BYTES or
 * NULL, says what happened to which file, and where. */
heaptape_status heaptape_open(const char* path, heaptape_trace** trace, char* message);
void heaptape_close(heaptape_trace* trace); /* NULL does nothing */

/* These live as long as the trace. */
const heaptape_info* heaptape_get_info(const heaptape_trace* trace);
const heaptape_summary* heaptape_get_summary(const heaptape_trace* trace);

/* The next events, some ten thousand at a time. Damage is passed over: a HEAPTAPE_LOST event, and then what was alive
 * at the next point where that is known. */
heaptape_status heaptape_next(heaptape_trace* trace, const heaptape_batch** batch);
/* Goes to the last point at or before event number `event`, or before `time_ns`, where the live objects are known: the
 * next batch brings them back. 0 goes to the beginning. */
heaptape_status heaptape_seek(heaptape_trace* trace, uint64_t event);
heaptape_status heaptape_seek_time(heaptape_trace* trace, uint64_t time_ns);

/* The samples, in order of time. They live as long as the trace. */
heaptape_status heaptape_get_resident(heaptape_trace* trace, const heaptape_resident** samples, size_t* count);

/* What happened, after a function that returned something else than HEAPTAPE_OK. Valid until the next call. */
const char* heaptape_message(const heaptape_trace* trace);
/* Sentences about damage met so far, "guard.tape: block 17 at byte 812345: checksum mismatch"; NULL from the last on. */
const char* heaptape_damage(const heaptape_trace* trace, size_t number);

/* "malloc", "thread_start"; "unknown" for a number that is none. Lives for ever. */
const char* heaptape_operation_name(int operation);
/* "0.1.0", of the library that is loaded. */
const char* heaptape_version(void);

#ifdef __cplusplus
}
#endif

#endif /* HEAPTAPE_TRACE_H_ */
