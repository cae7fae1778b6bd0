// Decodes the instructions that trap.
#include <signal.h>
#include <ucontext.h>

#include <cstdint>
#include <cstring>

#include "amx_emulator.h"

namespace amx_emulator {

namespace {

// General registers by their number in instructions.
constexpr int kRegisters[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                REG_R12, REG_R13, REG_R14, REG_R15};

// An instruction with a three-byte VEX prefix (Intel SDM, volume 2, 2.3.5), as far as AMX has them.
class Instruction {
 public:
  Instruction(const greg_t* registers, const uint8_t* code) : registers_(registers), code_(code) {
    known_ = code[0] == 0xc4 && (code[1] & 0x1f) == 2 && (code[2] & 0x84) == 0;
    if (!known_) return;
    x_ = (code[1] & 0x40) == 0 ? 8 : 0;
    b_ = (code[1] & 0x20) == 0 ? 8 : 0;
    third_ = ~code[2] >> 3 & 15;
    operation_ = (code[2] & 3) << 8 | code[3];
    mode_ = code[4] >> 6;
    first_ = code[4] >> 3 & 7;
    second_ = code[4] & 7;
    length_ = 5;
    if (mode_ != 3) decode_memory();
  }

  // Runs it; its length, or 0 where it is none of AMX.
  int run() const {
    constexpr int kPlain = 0, k66 = 0x100, kF3 = 0x200, kF2 = 0x300;
    if (!known_) return 0;
    const bool memory = mode_ != 3;
    const bool strided = memory && has_index_byte_;
    if (operation_ == (kPlain | 0x49) && memory && first_ == 0) {
      ldtilecfg(reinterpret_cast<const void*>(base_ + index_));
    } else if (operation_ == (kPlain | 0x49) && code_[4] == 0xc0) {
      tilerelease();
    } else if (operation_ == (kF2 | 0x49) && !memory && second_ == 0) {
      tilezero(first_);
    } else if ((operation_ == (kF2 | 0x4b) || operation_ == (k66 | 0x4b)) && strided) {
      // The second, TILELOADDT1, passes by the first-level cache.
      tileloadd(first_, reinterpret_cast<const void*>(base_), index_);
    } else if (operation_ == (kF3 | 0x4b) && strided) {
      tilestored(first_, reinterpret_cast<void*>(base_), index_);
    } else if (operation_ == (kF3 | 0x5c) && !memory) {
      tdpbf16ps(first_, second_, third_);
    } else if (operation_ == (k66 | 0x5e) && !memory) {
      tdpbusd(first_, second_, third_);
    } else {
      return 0;
    }
    return length_;
  }

 private:
  void decode_memory() {
    has_index_byte_ = second_ == 4;
    int base = second_;
    if (has_index_byte_) {
      const uint8_t sib = code_[length_++];
      const int index = (sib >> 3 & 7) + x_;
      base = sib & 7;
      index_ = index == 4 ? 0 : registers_[kRegisters[index]] << (sib >> 6);
    }
    if (mode_ == 0 && base == 5) {
      const int64_t offset = displacement<int32_t>();
      // After the instruction, or from 0.
      base_ = has_index_byte_ ? offset : reinterpret_cast<int64_t>(code_ + length_) + offset;
      return;
    }
    base_ = registers_[kRegisters[base + b_]];
    if (mode_ == 1) base_ += displacement<int8_t>();
    if (mode_ == 2) base_ += displacement<int32_t>();
  }

  template <class Number>
  Number displacement() {
    Number number;
    std::memcpy(&number, code_ + length_, sizeof number);
    length_ += static_cast<int>(sizeof number);
    return number;
  }

  const greg_t* registers_;
  const uint8_t* code_;
  bool known_;
  int x_ = 0, b_ = 0, operation_ = 0;
  int mode_ = 0, first_ = 0, second_ = 0, third_ = 0;
  int length_ = 0;
  bool has_index_byte_ = false;
  int64_t base_ = 0, index_ = 0;
};

void on_trap(int, siginfo_t*, void* context) {
  greg_t* const registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  const Instruction instruction(registers, reinterpret_cast<const uint8_t*>(registers[REG_RIP]));
  const int length = instruction.run();
  if (length == 0) signal(SIGILL, SIG_DFL);  // none of ours: it traps once more
  registers[REG_RIP] += length;
}

}  // namespace

namespace {
bool installed = false;
}

bool is_installed() { return installed; }

void install() {
  installed = true;
  struct sigaction action = {};
  action.sa_sigaction = on_trap;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGILL, &action, nullptr);
}

}  // namespace amx_emulator
