// Waiting in a loop: for the sources of this folder alone, which are compiled for the baseline.
#pragma once

#include <thread>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace fusedrnn::cpu {

// Tells the core that this is a spin loop: saves power and leaves the other hardware thread more
// room.
inline void cpu_relax() {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");  // `yield` does nothing on most cores
#endif
}

// Between two looks at what is awaited. The thread awaited may need this very CPU, so the CPU is
// offered to others at short intervals: on a crowded machine whatever is spun away comes on top of
// every exchange between threads, while on a quiet one an offer costs 0.4 microseconds and nothing
// else.
class Backoff {
 public:
  // Whether the CPU was offered: the moment for things that cost more than one look.
  bool pause() {
    if (++turns_ % kTurnsPerOffer != 0) {
      cpu_relax();
      return false;
    }
    std::this_thread::yield();
    return true;
  }

 private:
  static constexpr unsigned kTurnsPerOffer = 64;  // 1 to 3 microseconds
  unsigned turns_ = 0;
};

}  // namespace fusedrnn::cpu
