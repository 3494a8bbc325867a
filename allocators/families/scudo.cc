// scudo, the hardened allocator of LLVM's compiler-rt, standalone as Android has it.

#include "allocators/family.h"

namespace heaptape::families {

extern const Family scudo = {
    .name = "scudo",
    .summary = "hardened: checksummed headers, quarantine, caches per thread or CPU",
    .libraries = {"/usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.scudo_standalone-x86_64.so"},
    .delivery = TunableDelivery::kList,
    .tunable_variable = "SCUDO_OPTIONS",
    .tunable_assign = '=',
    .tunable_separator = ':',
    .tunables =
        {
            {"dealloc_type_mismatch", "false", "aborts where a block is freed by another family of calls"},
            {"delete_size_mismatch", "true", "aborts where a sized delete names another size"},
            {"may_return_null", "true", "NULL instead of an abort where memory is out"},
            {"pattern_fill_contents", "false", "fills fresh blocks with a pattern"},
            {"quarantine_max_chunk_size", "0", "largest block in bytes that is quarantined"},
            {"quarantine_size_kb", "0", "KiB of freed blocks held back"},
            {"release_to_os_interval_ms", "5000", "ms between returns of unused pages; -1 never"},
            {"thread_local_quarantine_size_kb", "0", "KiB of freed blocks held back by a thread"},
            {"zero_contents", "false", "fills fresh blocks with zeroes"},
        },
    // Puts a few allocations, drawn by lot, between guard pages, and crashes where it was loaded late.
    .always_set = {{"GWP_ASAN_Enabled", "0"}},
    .statistics = "malloc_info(0, stream), __scudo_print_stats()",
    .purge = "mallopt(M_PURGE, 0) with M_PURGE -101",
    .packages = {{"libclang-rt-22-dev", "libclang_rt.scudo_standalone-x86_64.so"},
                 {"libclang-rt-19-dev", "libclang_rt.scudo_standalone-x86_64.so"},
                 {"libclang-rt-16-dev", "libclang_rt.scudo_standalone-x86_64.so"},
                 {"libclang-rt-14-dev", "libclang_rt.scudo_standalone-x86_64.so"}},
    .build = "mkdir -p \"$PREFIX/lib\" && cd compiler-rt/lib/scudo/standalone && ${CXX:-c++} -O3 -fPIC -shared "
             "-std=c++17 -fno-exceptions -fno-rtti -msse4.2 $OPTIONS -I include -I . $(ls *.cpp | grep -v fuzz) "
             "-lpthread -o \"$PREFIX/lib/libclang_rt.scudo_standalone-x86_64.so\"",
    .build_needs = {"g++"},
    .tag_forms = {"llvmorg-VERSION"},
};

}  // namespace heaptape::families
