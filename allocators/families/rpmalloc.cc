// rpmalloc: spans of one size class per thread, a port of which serves games and engines.

#include "allocators/family.h"

namespace heaptape::families {

extern const Family rpmalloc = {
    .name = "rpmalloc",
    .summary = "spans of one size class per thread, no locks",
    .libraries = {"librpmalloc.so.1"},
    .statistics = "rpmalloc_dump_statistics(), where built with them",
    .purge = "none",
    .packages = {{"librpmalloc1", "librpmalloc.so.1*"}},
    .source_packages = {{.name = "rpmalloc"}},
    .build = "mkdir -p \"$PREFIX/lib\" && ${CC:-cc} -O2 -fPIC -shared -std=gnu11 -D_GNU_SOURCE -DENABLE_PRELOAD=1 "
             "-DENABLE_OVERRIDE=1 -fvisibility=default $OPTIONS -I rpmalloc rpmalloc/rpmalloc.c -lpthread "
             "-o \"$PREFIX/lib/librpmalloc.so.1\"",
    .build_needs = {"gcc"},
    .tag_forms = {"VERSION"},
    // Seen in a plain program that preloads it as well.
    .caveat = "aligns to 128 KiB at most, valloc() as a process's first call not to a page; malloc(SIZE_MAX) succeeds",
};

}  // namespace heaptape::families
