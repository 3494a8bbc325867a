// tcmalloc of gperftools, the minimal library without its profilers.

#include "allocators/family.h"

namespace heaptape::families {

extern const Family tcmalloc = {
    .name = "tcmalloc",
    .aliases = {"gperftools"},
    .summary = "gperftools: caches per thread before central lists of spans",
    .libraries = {"libtcmalloc_minimal.so.4"},
    .version_query = VersionQuery::kText,
    .version_symbol = "tc_version",
    .delivery = TunableDelivery::kVariables,
    .tunable_variable = "TCMALLOC_",
    .tunables =
        {
            {"aggressive_decommit", "false", "gives every freed span back at once"},
            {"disable_memory_release", "false", "gives nothing back"},
            {"heap_limit_mb", "0", "MiB of heap beyond which allocation fails; 0 is no limit"},
            {"large_alloc_report_threshold", "1073741824", "bytes from which an allocation is reported on stderr"},
            {"max_total_thread_cache_bytes", "33554432", "bytes in the caches of all threads together"},
            {"memfs_malloc_path", "", "huge page file system to take memory from"},
            {"release_rate", "1.0", "how eagerly pages go back, 0 (never) to 10"},
            {"skip_mmap", "false", "takes memory by brk alone"},
            {"skip_sbrk", "false", "takes memory by mmap alone"},
            {"transfer_num_obj", "32", "most objects moved at a time between thread cache and central list"},
        },
    .statistics = "MallocExtension_GetStats(), MallocExtension_GetNumericProperty()",
    .purge = "MallocExtension_ReleaseFreeMemory()",
    .packages = {{"libtcmalloc-minimal4t64", "libtcmalloc_minimal.so.4*"},
                 {"libtcmalloc-minimal4", "libtcmalloc_minimal.so.4*"}},
    .source_packages = {{.name = "google-perftools"}},
    .build = "{ [ -x configure ] || ./autogen.sh; } && ./configure --prefix=\"$PREFIX\" --enable-minimal "
             "--disable-static --disable-debugalloc $OPTIONS && make -j$JOBS libtcmalloc_minimal.la && "
             "make install-libLTLIBRARIES",
    .build_needs = {"g++", "make", "autoconf", "automake", "libtoolize:libtool"},
    .tag_forms = {"gperftools-VERSION"},
};

}  // namespace heaptape::families
