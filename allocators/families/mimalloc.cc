// mimalloc: free lists per page of one size class, pages purged after a delay.

#include "allocators/family.h"

namespace heaptape::families {

extern const Family mimalloc = {
    .name = "mimalloc",
    .summary = "free lists per page, pages purged after a delay",
    .libraries = {"libmimalloc.so.3", "libmimalloc.so.2.?", "libmimalloc.so.2", "libmimalloc.so.1.?"},
    .version_query = VersionQuery::kNumber,
    .version_symbol = "mi_version",
    .delivery = TunableDelivery::kVariables,
    .tunable_variable = "MIMALLOC_",
    .tunables =
        {
            {"abandoned_page_purge", "0", "since 2.1: 1 purges the pages of a thread that ended at once"},
            {"abandoned_page_reset", "0", "2.0: as abandoned_page_purge"},
            {"allow_decommit", "1", "2.0: unused memory goes back to the kernel"},
            {"allow_large_os_pages", "0", "since 2.1: 1 uses 2 MiB pages; 3.x asks for transparent ones by itself"},
            {"arena_eager_commit", "2", "since 2.1: commits arenas at once: 0 no, 1 yes, 2 where the kernel overcommits"},
            {"arena_purge_mult", "10", "since 2.1: purge_delay times this is the delay for whole parts of an arena"},
            {"arena_reserve", "1048576", "since 2.1: KiB of address range that an arena takes"},
            {"decommit_extend_delay", "2", "2.0: ms that the delay grows while neighbours are freed"},
            {"disallow_arena_alloc", "0", "since 2.1.8: 1 asks the kernel each time instead of an arena"},
            {"disallow_os_alloc", "0", "since 2.1: 1 takes memory from arenas only"},
            {"eager_commit", "1", "2.x: commits a segment at once"},
            {"eager_commit_delay", "1", "segments of a thread that are not committed at once"},
            {"large_os_pages", "0", "2.0: as allow_large_os_pages"},
            {"limit_os_alloc", "0", "2.0: as disallow_os_alloc"},
            {"max_segment_reclaim", "8", "2.x: abandoned segments that a thread takes over at a time"},
            {"page_full_retain", "2", "3.x: full pages that a heap keeps for each size class"},
            {"page_max_candidates", "4", "3.x: pages looked at for the fullest to allocate from"},
            {"page_reclaim_on_free", "0", "3.x: a thread that frees in an abandoned page may take it over"},
            {"purge_decommits", "1", "since 2.1: 1 gives pages back at once (MADV_DONTNEED), 0 lazily (MADV_FREE)"},
            {"purge_delay", "10", "since 2.1: ms before unused pages go back; 0 at once, -1 never"},
            {"purge_extend_delay", "1", "since 2.1: ms that the delay grows while neighbours are freed"},
            {"reserve_huge_os_pages", "0", "1 GiB pages taken at the start"},
            {"reserve_os_memory", "0", "KiB taken at the start"},
            {"reset_delay", "10", "2.0: ms before unused pages are reset"},
            {"segment_decommit_delay", "500", "2.0: ms before the parts of a segment go back"},
            {"target_segments_per_thread", "0", "since 2.1.2, 2.x: segments beyond which a thread gives some up; 0 never"},
        },
    .statistics = "mi_stats_print_out(), mi_process_info()",
    .purge = "mi_collect(true)",
    .packages = {{"libmimalloc3", "libmimalloc.so.3*"}, {"libmimalloc2.0", "libmimalloc.so.2*"}},
    .source_packages =
        {
            {.name = "mimalloc"},
            {.name = "mold", .folder = "third-party/mimalloc", .version = "2.1.9", .releases = {"trixie"}},
            // Changed for Python: what its collector has to say of pages is left out, the rest is as its build has it.
            {.name = "python3.13",
             .version = "2.1.2",
             .releases = {"trixie", "forky"},
             .build = "mkdir -p \"$PREFIX/lib\" && ${CC:-cc} -O3 -DNDEBUG -std=gnu11 -w -shared -fPIC -fvisibility=hidden "
                      "-ftls-model=initial-exec -fno-builtin-malloc -DMI_MALLOC_OVERRIDE -DMI_SHARED_LIB -DMI_SHARED_LIB_EXPORT "
                      "'-D_PyMem_mi_page_maybe_free(page,queue,force)=(_mi_page_free(page,queue,force),true)' "
                      "'-D_PyMem_mi_page_is_safe_to_free(page)=true' '-D_PyMem_mi_heap_collect_qsbr(heap)=((void)0)' "
                      "'-D_PyMem_mi_page_clear_qsbr(page)=((void)0)' '-D_PyMem_mi_page_reclaimed(page)=((void)0)' "
                      "$OPTIONS -I Include/internal -I Include/internal/mimalloc Objects/mimalloc/static.c -lpthread "
                      "-o \"$PREFIX/lib/libmimalloc.so.2\""},
        },
    .build = "cmake -S . -B out -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX=\"$PREFIX\" -DMI_BUILD_TESTS=OFF "
             "-DMI_BUILD_STATIC=OFF -DMI_BUILD_OBJECT=OFF $OPTIONS && cmake --build out -j$JOBS && cmake --install out",
    .build_needs = {"cmake", "gcc", "make"},
    .tag_forms = {"vVERSION"},
    .library_after_build = "libmimalloc.so*",
};

}  // namespace heaptape::families
