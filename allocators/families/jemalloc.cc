// jemalloc: arenas with extents whose unused pages decay back to the kernel over time.

#include "allocators/family.h"

namespace heaptape::families {

extern const Family jemalloc = {
    .name = "jemalloc",
    .summary = "arenas whose unused pages decay by time",
    .libraries = {"libjemalloc.so.2"},
    .version_query = VersionQuery::kMallctl,
    .version_symbol = "mallctl",
    .delivery = TunableDelivery::kList,
    .tunable_variable = "MALLOC_CONF",
    .tunable_assign = ':',
    .tunable_separator = ',',
    .tunables =
        {
            {"cache_oblivious", "true", "spreads large blocks over cache sets at a page's cost each"},
            {"dirty_decay_ms", "10000", "ms in which unused dirty pages go back; 0 at once, -1 never"},
            {"dss", "secondary", "use of brk: disabled, primary or secondary"},
            {"lg_extent_max_active_fit", "6", "log2 of the largest ratio of a reused extent to the request"},
            {"lg_tcache_max", "15", "log2 of the largest block in bytes that a thread keeps"},
            {"metadata_thp", "disabled", "huge pages for its own tables: disabled, auto or always"},
            {"muzzy_decay_ms", "0", "ms in which lazily returned pages are returned for good; -1 never"},
            {"narenas", "4 * CPUs", "arenas that threads are spread over"},
            {"oversize_threshold", "8388608", "bytes from which a block gets the arena for huge ones; 0 never"},
            {"percpu_arena", "disabled", "an arena for each CPU: disabled, percpu or phycpu"},
            {"retain", "true", "keeps address ranges for reuse instead of unmapping them"},
            {"tcache", "true", "caches in each thread"},
            {"tcache_max", "32768", "largest block in bytes that a thread keeps"},
            {"thp", "default", "transparent huge pages for the heap: default, always or never"},
        },
    .statistics = "malloc_stats_print(), mallctl(\"stats.*\") after mallctl(\"epoch\")",
    .purge = "mallctl(\"arena.4096.purge\")",
    .packages = {{"libjemalloc2", "libjemalloc.so.2"}},
    .source_packages = {{.name = "jemalloc"}},
    .build = "{ [ -x configure ] || autoconf; } && ./configure --prefix=\"$PREFIX\" --disable-static $OPTIONS && "
             "make -j$JOBS build_lib_shared && make install_lib_shared",
    .build_needs = {"gcc", "make", "autoconf"},
    .tag_forms = {"VERSION"},
};

}  // namespace heaptape::families
