#include "recorder/preload/stacks.h"

#include <elf.h>
#include <unwind.h>

namespace heaptape {
namespace {

using Backtrace = _Unwind_Reason_Code (*)(_Unwind_Trace_Fn, void*);
using InstructionPointer = _Unwind_Ptr (*)(_Unwind_Context*);

struct Code {
  std::uint64_t start;
  std::uint64_t end;
  bool Has(std::uint64_t address) const { return start <= address && address < end; }
};

// Bytes from one call stack to the next; 0: not decided yet, below 0: none are wanted.
std::atomic<std::int64_t> stack_step;
Backtrace backtrace;
InstructionPointer instruction_pointer;
Code own_code;
Code unwinder_code;

// All of the loaded file that begins there.
Code LoadedFile(const void* base) {
  const auto* header = static_cast<const Elf64_Ehdr*>(base);
  const auto* segments = reinterpret_cast<const Elf64_Phdr*>(static_cast<const char*>(base) + header->e_phoff);
  Code code = {reinterpret_cast<std::uint64_t>(base), reinterpret_cast<std::uint64_t>(base)};
  for (int i = 0; i < header->e_phnum; ++i) {
    const std::uint64_t end = code.start + segments[i].p_vaddr + segments[i].p_memsz;
    if (segments[i].p_type == PT_LOAD && end > code.end) code.end = end;
  }
  return code;
}

_Unwind_Reason_Code AddFrame(_Unwind_Context* context, void* argument) {
  auto* frames = static_cast<Frames*>(argument);
  const std::uint64_t address = instruction_pointer(context);
  if (own_code.Has(address)) return _URC_NO_REASON;
  if (address == 0 || address >> kAddressBits || frames->count == kStackFramesMax) return _URC_END_OF_STACK;
  frames->addresses[frames->count++] = address;
  return _URC_NO_REASON;
}

}  // namespace

bool PrepareStacks(const Dl_info& own) {
  own_code = LoadedFile(own.dli_fbase);
  void* library = dlopen("libgcc_s.so.1", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  // From version 12 on it finds the code of a frame by _dl_find_object. Before, it took a lock of the loader, whose
  // owner may be waiting for the very thread that allocates here.
  if (!library || !dlvsym(library, "__extendhfsf2", "GCC_12.0.0")) return false;
  backtrace = reinterpret_cast<Backtrace>(dlsym(library, "_Unwind_Backtrace"));
  instruction_pointer = reinterpret_cast<InstructionPointer>(dlsym(library, "_Unwind_GetIP"));
  Dl_info unwinder;
  if (!backtrace || !instruction_pointer || !dladdr(reinterpret_cast<void*>(backtrace), &unwinder)) return false;
  unwinder_code = LoadedFile(unwinder.dli_fbase);
  Frames frames = {};
  backtrace(AddFrame, &frames);
  return frames.count > 0;
}

void SetStackStep(std::uint64_t bytes) {
  stack_step.store(bytes ? static_cast<std::int64_t>(bytes) : -1, memory_order_release);
}

bool StackIsDue() {
  const std::int64_t step = stack_step.load(memory_order_acquire);
  if (step <= 0) {
    thread.stack_left = step < 0 ? INT64_MAX : static_cast<std::int64_t>(kBigBytes);
    return false;
  }
  const bool due = thread.counts_to_stack;
  const std::int64_t beyond = due ? -thread.stack_left % step : 0;
  thread.counts_to_stack = true;
  thread.stack_left = step - beyond;
  return due;
}

bool TakeStack(Frames* frames, const void* caller) {
  frames->count = 0;
  if (thread.unwinding || unwinder_code.Has(reinterpret_cast<std::uint64_t>(caller))) return false;
  thread.unwinding = true;
  backtrace(AddFrame, frames);
  thread.unwinding = false;
  return frames->count > 0;
}

}  // namespace heaptape
