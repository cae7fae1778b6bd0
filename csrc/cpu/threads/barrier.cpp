#include "cpu/threads/pool.h"
#include "cpu/threads/spin.h"

namespace fusedrnn::cpu {

namespace {

constexpr int kRoundShift = 32;
constexpr uint64_t kArrivedMask = 0xffffffffu;

}  // namespace

Barrier::Barrier(int n) : state_(0), n_(n) {}

void Barrier::wait() {
  const uint64_t before = state_.fetch_add(1, std::memory_order_acq_rel);
  const uint64_t round = before >> kRoundShift;
  if ((before & kArrivedMask) + 1 == static_cast<uint64_t>(n_)) {
    // The last one has seen every arrival (acquire, through the chain of additions) and hands all
    // of it on. Nobody can arrive for the next round before this store.
    state_.store((round + 1) << kRoundShift, std::memory_order_release);
    return;
  }
  Backoff backoff;
  while (state_.load(std::memory_order_acquire) >> kRoundShift == round) {
    backoff.pause();
  }
}

}  // namespace fusedrnn::cpu
