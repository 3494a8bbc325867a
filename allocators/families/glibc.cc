// glibc's malloc (ptmalloc): the one a program has if it does nothing about it.

#include "allocators/family.h"

namespace heaptape::families {

extern const Family glibc = {
    .name = "glibc",
    .summary = "the C library's own malloc, arenas per thread",
    .libraries = {"libc.so.6"},
    .builtin = Family::Builtin::kSystemMalloc,
    .version_query = VersionQuery::kText,
    .version_symbol = "gnu_get_libc_version",
    .delivery = TunableDelivery::kList,
    .tunable_variable = "GLIBC_TUNABLES",
    .tunable_name_prefix = "glibc.malloc.",
    .tunable_assign = '=',
    .tunable_separator = ':',
    .tunables =
        {
            {"arena_max", "8 * CPUs", "most arenas it makes; 0 means the default"},
            {"arena_test", "8", "arenas made before the number of CPUs is asked"},
            {"check", "0", "consistency checks; needs libc_malloc_debug preloaded since 2.34"},
            {"hugetlb", "0", "1 asks for transparent huge pages, 2 and more for pages from the pool"},
            {"mmap_max", "65536", "most blocks held by mmap of their own at a time"},
            {"mmap_threshold", "131072, moving", "bytes from which a block gets an mmap of its own; setting it stops it moving"},
            {"mxfast", "128", "largest request in bytes served from fast bins"},
            {"perturb", "0", "byte that fresh and freed blocks are filled with"},
            {"tcache_count", "7", "blocks of one size kept by a thread"},
            {"tcache_max", "1032", "largest block in bytes that a thread keeps"},
            {"tcache_unsorted_limit", "0", "most chunks looked at in the unsorted list while filling a thread's cache; 0 is no limit"},
            {"top_pad", "131072", "bytes asked for beyond the need when the heap grows"},
            {"trim_threshold", "131072, moving", "free bytes at the heap's top from which it shrinks; setting it stops it moving"},
        },
    .statistics = "mallinfo2(), malloc_info(0, stream)",
    .purge = "malloc_trim(0)",
    .packages = {{"libc6", "libc.so.6"}},
    .source_packages = {{.name = "glibc"}},
    // Only what a program needs to run under it: the loader and the libraries, no programs nor locales.
    .build = "mkdir build && cd build && ../configure --prefix=/usr --libdir=/usr/lib --disable-werror "
             "--disable-nscd --disable-timezone-tools --without-selinux libc_cv_slibdir=/lib "
             "libc_cv_rtlddir=/lib64 $OPTIONS && make -j$JOBS lib && mkdir -p \"$PREFIX/lib\" && "
             "cp libc.so \"$PREFIX/lib/libc.so.6\" && cp elf/ld-linux-x86-64.so.2 \"$PREFIX/lib/\" && "
             "for part in math/libm nptl/libpthread dlfcn/libdl rt/librt; do "
             "for file in $part.so; do [ -f $file ] && cp $file \"$PREFIX/lib/$(basename $file).$(case $part in "
             "math/libm) echo 6;; nptl/libpthread) echo 0;; dlfcn/libdl) echo 2;; *) echo 1;; esac)\"; done; done; true",
    .build_needs = {"gcc", "make", "bison", "gawk", "python3"},
    .tag_forms = {"glibc-VERSION"},
    .library_after_build = "libc.so.6",
};

}  // namespace heaptape::families
