#include "cpu/threads/progress.h"

#include "cpu/threads/spin.h"

namespace fusedrnn::cpu {

void Progress::report(int thread, int64_t count) noexcept {
  done_[static_cast<size_t>(thread)].value.store(count, std::memory_order_release);
}

void Progress::wait(int64_t count) const noexcept {
  for (const Count& done : done_) {
    Backoff backoff;
    while (done.value.load(std::memory_order_acquire) < count) backoff.pause();
  }
}

}  // namespace fusedrnn::cpu
