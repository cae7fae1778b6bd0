#include "cpu/fp_mode.h"

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace fusedrnn::cpu {

namespace {

#if defined(__SSE2__)

// Intel SDM, volume 1, 10.2.3: every exception masked, flush-to-zero, denormals-are-zero.
constexpr uint64_t kKernelMode = 0x1f80 | 0x8000 | 0x0040;

uint64_t read_mode() { return _mm_getcsr(); }
void write_mode(uint64_t mode) { _mm_setcsr(static_cast<unsigned>(mode)); }

#elif defined(__aarch64__)

constexpr uint64_t kKernelMode = uint64_t{1} << 24;  // FPCR.FZ, for inputs and results

// FPCR holds the mode, FPSR the sticky flags; both have 32 bits.
uint64_t read_mode() {
  uint64_t mode, flags;
  asm volatile("mrs %0, fpcr" : "=r"(mode));
  asm volatile("mrs %0, fpsr" : "=r"(flags));
  return flags << 32 | mode;
}
void write_mode(uint64_t mode) {
  asm volatile("msr fpcr, %0" : : "r"(mode & 0xffffffff));
  asm volatile("msr fpsr, %0" : : "r"(mode >> 32));
}

#else

// No such mode that we know of: denormals are kept, and slow.
constexpr uint64_t kKernelMode = 0;

uint64_t read_mode() { return 0; }
void write_mode(uint64_t) {}

#endif

}  // namespace

FlushDenormals::FlushDenormals() : before_(read_mode()) { write_mode(kKernelMode); }
FlushDenormals::~FlushDenormals() { write_mode(before_); }

}  // namespace fusedrnn::cpu
