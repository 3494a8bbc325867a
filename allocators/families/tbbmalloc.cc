// tbbmalloc of oneTBB, through its own names: the proxy library that replaces malloc only forwards to them.

#include "allocators/family.h"

namespace heaptape::families {

extern const Family tbbmalloc = {
    .name = "tbbmalloc",
    .summary = "oneTBB: bins per thread over one backend",
    .symbol_prefix = "scalable_",
    .libraries = {"libtbbmalloc.so.2"},
    .delivery = TunableDelivery::kVariables,
    .tunable_variable = "TBB_MALLOC_",
    .tunables =
        {
            {"set_huge_size_threshold", "0", "bytes from which blocks are given back at once; 0 is the built-in limit"},
            {"use_huge_pages", "0", "1 asks for huge pages"},
        },
    .statistics = "none in a release build",
    .purge = "scalable_allocation_command(TBBMALLOC_CLEAN_ALL_BUFFERS, 0)",
    .packages = {{"libtbbmalloc2", "libtbbmalloc.so.2*"}},
    .source_packages = {{.name = "onetbb"}},
    .build = "cmake -S . -B out -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX=\"$PREFIX\" -DTBB_TEST=OFF "
             "$OPTIONS && cmake --build out -j$JOBS --target tbbmalloc && mkdir -p \"$PREFIX/lib\" && "
             "cp -a $(find out -name 'libtbbmalloc.so*') \"$PREFIX/lib\"",
    .build_needs = {"cmake", "g++", "make"},
    .tag_forms = {"vVERSION"},
    .library_after_build = "libtbbmalloc.so.2*",
};

}  // namespace heaptape::families
