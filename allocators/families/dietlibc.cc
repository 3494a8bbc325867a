// dietlibc's malloc. dietlibc is linked into programs and comes as no shared library: its malloc, one file, is
// compiled by itself from the source.

#include "allocators/family.h"

namespace heaptape::families {

extern const Family dietlibc = {
    .name = "dietlibc",
    .summary = "powers of two up to half a page, an mmap for each block above",
    .libraries = {"libdietlibc-malloc.so"},
    .statistics = "none",
    .purge = "none",
    .source_packages = {{.name = "dietlibc"}},
    .build = "mkdir -p \"$PREFIX/lib\" && ${CC:-cc} -O2 -fPIC -shared -std=gnu11 -w -D_GNU_SOURCE -DPAGE_SIZE=4096UL "
             "-fno-builtin -fno-strict-aliasing -Wl,-Bsymbolic $OPTIONS -iquote . lib/alloc.c "
             "-o \"$PREFIX/lib/libdietlibc-malloc.so\"",
    .build_needs = {"gcc"},
    .caveat = "takes no lock and has no aligned allocation",
};

}  // namespace heaptape::families
