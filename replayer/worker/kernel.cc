#include "replayer/worker/kernel.h"

#if !defined(__x86_64__)
#error "the replay worker knows x86-64 only"
#endif

asm(R"(
  .pushsection .text.heaptape_raw_syscalls, "ax", @progbits
  .balign 64
  .globl HeaptapeRawSyscallsBegin
  .hidden HeaptapeRawSyscallsBegin
HeaptapeRawSyscallsBegin:
  .globl HeaptapeRawSyscall
  .hidden HeaptapeRawSyscall
  .type HeaptapeRawSyscall, @function
HeaptapeRawSyscall:
  .cfi_startproc
  mov %rdi, %rax
  mov %rsi, %rdi
  mov %rdx, %rsi
  mov %rcx, %rdx
  mov %r8, %r10
  mov %r9, %r8
  mov 8(%rsp), %r9
  syscall
  ret
  .cfi_endproc
  .size HeaptapeRawSyscall, . - HeaptapeRawSyscall
  .globl HeaptapeSignalReturn
  .hidden HeaptapeSignalReturn
  .type HeaptapeSignalReturn, @function
HeaptapeSignalReturn:
  mov $15, %eax
  syscall
  ud2
  .size HeaptapeSignalReturn, . - HeaptapeSignalReturn
  .globl HeaptapeRawSyscallsEnd
  .hidden HeaptapeRawSyscallsEnd
HeaptapeRawSyscallsEnd:
  .popsection
)");
