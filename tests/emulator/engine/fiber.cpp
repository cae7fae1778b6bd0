#include "engine/fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// fusedrnn_switch_stack(save, load): pushes the registers that a call preserves, leaves the stack
// pointer in *save, and goes on where `load` was left in the same way.
extern "C" void fusedrnn_switch_stack(void** save, void* load);

#if defined(__x86_64__)
asm(R"(
.text
.globl fusedrnn_switch_stack
.hidden fusedrnn_switch_stack
.type fusedrnn_switch_stack, @function
fusedrnn_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size fusedrnn_switch_stack, .-fusedrnn_switch_stack
)");
#elif defined(__aarch64__)
asm(R"(
.text
.globl fusedrnn_switch_stack
.hidden fusedrnn_switch_stack
.type fusedrnn_switch_stack, %function
fusedrnn_switch_stack:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size fusedrnn_switch_stack, .-fusedrnn_switch_stack
)");
#else
#error "the emulator's fibers know x86-64 and AArch64"
#endif

namespace fusedrnn::emulator {
namespace {

constexpr size_t kStackBytes = 256 * 1024;  // of address space; what is not touched costs nothing
constexpr size_t kGuardBytes = 64 * 1024;   // at the low end: an overflow faults

Fiber* running = nullptr;
void* scheduler_stack_pointer = nullptr;

// Stacks are never unmapped: a suite of tests launches thousands of blocks of the same sizes.
class StackPool {
 public:
  void* take() {
    if (free_.empty()) return map();
    void* const stack = free_.back();
    free_.pop_back();
    return stack;
  }
  void give(void* stack) { free_.push_back(stack); }

 private:
  static void* map() {
    void* const stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED) throw std::bad_alloc();
    if (mprotect(stack, kGuardBytes, PROT_NONE) != 0) throw std::bad_alloc();
    return stack;
  }

  std::vector<void*> free_;
};

StackPool& stack_pool() {
  static auto* const pool = new StackPool;  // outlives every static object that launches kernels
  return *pool;
}

// What fusedrnn_switch_stack pops: registers of zeros, then a return into `entry`.
void* first_frame(void* stack, void (*entry)()) {
  char* const top = static_cast<char*>(stack) + kStackBytes;
  const auto address = reinterpret_cast<uintptr_t>(entry);
#if defined(__x86_64__)
  // Six registers and the address: 56 bytes, so that `ret` leaves the stack 8 off a multiple of 16,
  // as a call does.
  constexpr size_t kFrame = 80, kReturn = 48;
#else
  constexpr size_t kFrame = 160, kReturn = 88;
#endif
  char* const frame = top - kFrame;
  std::memset(frame, 0, kFrame);
  std::memcpy(frame + kReturn, &address, sizeof address);
  return frame;
}

}  // namespace

void Fiber::start(void (*entry)(void*), void* argument) {
  stack_ = stack_pool().take();
  stack_pointer_ = first_frame(stack_, &Fiber::enter);
  entry_ = entry;
  argument_ = argument;
  returned_ = false;
  switch_to();
}

void Fiber::resume() { switch_to(); }

void Fiber::abandon() {
  if (stack_ == nullptr) return;
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(static_cast<char*>(stack_) + kGuardBytes,
                                kStackBytes - kGuardBytes);
#endif
  stack_pool().give(stack_);
  stack_ = nullptr;
}

void Fiber::switch_to() {
  running = this;
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(&fake_stack, stack_, kStackBytes);
#endif
  fusedrnn_switch_stack(&scheduler_stack_pointer, stack_pointer_);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
  running = nullptr;
  if (returned_) abandon();
}

#if defined(__SANITIZE_ADDRESS__)
namespace {
const void* scheduler_stack = nullptr;
size_t scheduler_stack_bytes = 0;
}  // namespace
#endif

void Fiber::suspend() {
  Fiber* const self = running;
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(self->returned_ ? nullptr : &fake_stack, scheduler_stack,
                                 scheduler_stack_bytes);
#endif
  fusedrnn_switch_stack(&self->stack_pointer_, scheduler_stack_pointer);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack, &scheduler_stack, &scheduler_stack_bytes);
#endif
}

void Fiber::enter() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes);
#endif
  Fiber* const self = running;
  self->entry_(self->argument_);
  self->returned_ = true;
  suspend();
}

}  // namespace fusedrnn::emulator
