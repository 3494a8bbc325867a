#include "recorder/preload/filters.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>

#include "recorder/preload/system.h"

namespace heaptape {

std::atomic<bool> knows_filters;

namespace {

// Runs a filter's program as the kernel does (Documentation/userspace-api/seccomp_filter.rst: classic BPF on a
// seccomp_data, 32-bit loads only). Returns the action; SECCOMP_RET_KILL_PROCESS where it cannot be run.
class Filter {
 public:
  explicit Filter(const sock_fprog* program) : program_(program) {}

  std::uint32_t Run(const seccomp_data& data) const {
    std::uint32_t a = 0, x = 0;
    std::uint32_t memory[BPF_MEMWORDS] = {};
    for (std::uint32_t at = 0; at < program_->len;) {
      const sock_filter& step = program_->filter[at++];
      const std::uint32_t operand = BPF_SRC(step.code) == BPF_X ? x : step.k;
      switch (BPF_CLASS(step.code)) {
        case BPF_LD:
          if (BPF_MODE(step.code) == BPF_ABS) {
            if (step.k % 4 != 0 || step.k + 4 > sizeof(data)) return SECCOMP_RET_KILL_PROCESS;
            __builtin_memcpy(&a, reinterpret_cast<const char*>(&data) + step.k, 4);
          } else if (!Load(step, memory, &a)) {
            return SECCOMP_RET_KILL_PROCESS;
          }
          break;
        case BPF_LDX:
          if (!Load(step, memory, &x)) return SECCOMP_RET_KILL_PROCESS;
          break;
        case BPF_ST:
        case BPF_STX:
          if (step.k >= BPF_MEMWORDS) return SECCOMP_RET_KILL_PROCESS;
          memory[step.k] = BPF_CLASS(step.code) == BPF_ST ? a : x;
          break;
        case BPF_ALU:
          if (!Compute(BPF_OP(step.code), operand, &a)) return SECCOMP_RET_KILL_PROCESS;
          break;
        case BPF_JMP:
          at += BPF_OP(step.code) == BPF_JA ? step.k : Holds(BPF_OP(step.code), a, operand) ? step.jt : step.jf;
          break;
        case BPF_RET:
          return BPF_RVAL(step.code) == BPF_A ? a : step.k;
        case BPF_MISC:
          if (BPF_MISCOP(step.code) == BPF_TAX) x = a;
          else a = x;
          break;
        default:
          return SECCOMP_RET_KILL_PROCESS;
      }
    }
    return SECCOMP_RET_KILL_PROCESS;
  }

 private:
  static bool Load(const sock_filter& step, const std::uint32_t* memory, std::uint32_t* to) {
    switch (BPF_MODE(step.code)) {
      case BPF_IMM: *to = step.k; return true;
      case BPF_LEN: *to = sizeof(seccomp_data); return true;
      case BPF_MEM:
        if (step.k >= BPF_MEMWORDS) return false;
        *to = memory[step.k];
        return true;
      default: return false;
    }
  }
  static bool Compute(int op, std::uint32_t operand, std::uint32_t* a) {
    switch (op) {
      case BPF_ADD: *a += operand; return true;
      case BPF_SUB: *a -= operand; return true;
      case BPF_MUL: *a *= operand; return true;
      case BPF_DIV: return operand != 0 && ((*a /= operand), true);
      case BPF_OR: *a |= operand; return true;
      case BPF_AND: *a &= operand; return true;
      case BPF_XOR: *a ^= operand; return true;
      case BPF_LSH: *a = operand < 32 ? *a << operand : 0; return true;
      case BPF_RSH: *a = operand < 32 ? *a >> operand : 0; return true;
      case BPF_NEG: *a = -*a; return true;
      default: return false;
    }
  }
  static bool Holds(int op, std::uint32_t a, std::uint32_t operand) {
    switch (op) {
      case BPF_JEQ: return a == operand;
      case BPF_JGT: return a > operand;
      case BPF_JGE: return a >= operand;
      case BPF_JSET: return (a & operand) != 0;
      default: return false;
    }
  }

  const sock_fprog* program_;
};

bool Allows(const sock_fprog* program, int number, std::uint64_t first, std::uint64_t second, std::uint64_t fourth) {
  // Pointers are of memory that a filter could tell apart only by chance.
  const seccomp_data data = {.nr = number, .arch = AUDIT_ARCH_X86_64, .instruction_pointer = 0,
                             .args = {first, second, 0, fourth, 0, 0}};
  const std::uint32_t action = Filter(program).Run(data) & SECCOMP_RET_ACTION_FULL;
  return action == SECCOMP_RET_ALLOW || action == SECCOMP_RET_LOG;
}

void ForbidTime() {
  if (may_not_ask_time.load(memory_order_relaxed)) return;
  counted_time.store(Now(), memory_order_relaxed);
  may_not_ask_time.store(true, memory_order_release);
}

void NoteProgram(const sock_fprog* program) {
  knows_filters.store(true, memory_order_relaxed);
  if (program == nullptr || program->filter == nullptr) return;  // the kernel refuses it
  static std::uint32_t word;
  const auto address = reinterpret_cast<std::uint64_t>(&word);
  if (!Allows(program, SYS_futex, address, FUTEX_WAIT_PRIVATE, address)) may_not_sleep.store(true, memory_order_relaxed);
  if (!Allows(program, SYS_clock_gettime, CLOCK_MONOTONIC, address, 0)) ForbidTime();
}

}  // namespace

void ForbidWaiting() {
  ForbidTime();
  may_not_sleep.store(true, memory_order_relaxed);
}

void NoteFilterAtStart() {
  const long mode = SystemCall(SYS_prctl, PR_GET_SECCOMP);
  if (mode > 0) knows_filters.store(true, memory_order_relaxed);
}

void NoteFilterCall(long number, long first, long second, long third) {
  if (number == SYS_prctl && first == PR_SET_SECCOMP) {
    // Strict mode forbids everything, reading the processor's time stamp too.
    if (second == SECCOMP_MODE_STRICT) ForbidWaiting();
    if (second == SECCOMP_MODE_FILTER) NoteProgram(reinterpret_cast<const sock_fprog*>(third));
  } else if (number == SYS_seccomp) {
    if (first == SECCOMP_SET_MODE_STRICT) ForbidWaiting();
    if (first == SECCOMP_SET_MODE_FILTER) NoteProgram(reinterpret_cast<const sock_fprog*>(third));
  }
}

}  // namespace heaptape
