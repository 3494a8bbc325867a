#!/usr/bin/env python3
"""Writes story.glibc and story.replay as those programs would: from the structures that their sources describe.

    python3 make_samples.py FOLDER
"""

import pathlib
import struct
import sys

folder = pathlib.Path(sys.argv[1])

# struct __malloc_trace_buffer_s of glibc's malloc/mtrace.h (branch dj/malloc).
MALLOC, CALLOC, FREE, REALLOC, MEMALIGN, VALLOC, PVALLOC, POSIX_MEMALIGN, MAGIC = 1, 2, 3, 4, 5, 6, 7, 8, 255
PATH_THREAD_CACHE, PATH_SBRK = 1 << 8, 1 << 11


def record(thread, kind, ptr1=0, ptr2=0, size=0, size2=0, size3=0, path=0):
    return struct.pack("<iI7Q", thread, kind | path, ptr1, ptr2, size, size2, size3, 0, 0)


(folder / "story.glibc").write_bytes(b"".join([
    record(4711, MAGIC, 0x1234, size=8),
    record(4711, MALLOC, ptr2=0x55550010, size=24, size3=32, path=PATH_SBRK),
    record(4711, CALLOC, ptr2=0x55550030, size=100, size3=112),
    record(-42, MALLOC, ptr2=0x7FFF0010, size=100, size3=112, path=PATH_THREAD_CACHE),
    record(-42, MEMALIGN, ptr2=0x7FFF0100, size=1000, size2=64, size3=1024),
    record(-42, POSIX_MEMALIGN, ptr2=0x7FFF0500, size=4000, size2=4096, size3=4112),
    record(-42, POSIX_MEMALIGN, ptr1=12, size=1 << 62, size2=16),
    record(4711, REALLOC, 0x55550030, 0x55550800, 5000, 112, 5008),
    record(4711, REALLOC, 0, 0x55550030, 16, 0, 32),
    record(4711, MALLOC, size=(1 << 64) - 1),
    record(4711, VALLOC, ptr2=0x55556000, size=3, size3=32),
    record(4711, PVALLOC, ptr2=0x55558000, size=5000, size3=8208),
    record(-42, REALLOC, 0x7FFF0010, 0, 0, 112),
    record(4711, FREE, 0x7FFF0100, size2=1024),
    record(4711, FREE, 0x55550010, size2=32, path=PATH_THREAD_CACHE),
    record(0, 0),
    record(0, 0),
]))

# struct Instruction of malloc-trace-replay's instruction.h.
R_MALLOC, R_FREE, R_FREE_SIZED, R_MEMALIGN, R_REALLOC, R_SWITCH, R_KILL, R_TIME = range(8)


def instruction(kind, register=0, first=0, second=0):
    return struct.pack("<3Q", kind | register << 8, first, second)


START = 5_000_000 * 1024  # ns; the recorder keeps no less than 1024

(folder / "story.replay").write_bytes(b"".join([
    instruction(R_TIME, first=START, second=1),
    instruction(R_SWITCH, first=7),
    instruction(R_MALLOC, 0, 24),
    instruction(R_MALLOC, 1, 104),
    instruction(R_SWITCH, first=8),
    instruction(R_MALLOC, 2, 104),
    instruction(R_TIME, first=START + 3_000 * 1024, second=2),
    instruction(R_MEMALIGN, 3, 1000, 64),
    instruction(R_REALLOC, 1, 4, 5000),
    instruction(R_FREE_SIZED, 2, 104),
    instruction(R_KILL),
    instruction(R_SWITCH, first=7),
    instruction(R_FREE, 0),
    instruction(R_MALLOC, 0, 0),
    instruction(R_FREE, 0),
    instruction(R_FREE, 3),
    instruction(R_FREE, 4),
]))
