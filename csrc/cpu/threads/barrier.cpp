#include "cpu/threads/pool.h"
#include "cpu/threads/spin.h"

namespace fusedrnn::cpu {

namespace {

constexpr int kRoundShift = 32;
constexpr uint64_t kArrivedMask = 0xffffffffu;
constexpr int kOffersBeforeSleep = 4;

}  // namespace

Barrier::Barrier(int n) : state_(0), n_(n), crowded_(n > pool_cpus()) {}

void Barrier::wait() {
  const uint64_t before = state_.fetch_add(1, std::memory_order_acq_rel);
  const uint64_t round = before >> kRoundShift;
  if ((before & kArrivedMask) + 1 == static_cast<uint64_t>(n_)) {
    // The last one has seen every arrival (acquire, through the chain of additions) and hands all
    // of it on. Nobody can arrive for the next round before this store.
    state_.store((round + 1) << kRoundShift, std::memory_order_release);
    if (crowded_) state_.notify_all();
    return;
  }
  Backoff backoff;
  int offers = 0;
  for (;;) {
    const uint64_t now = state_.load(std::memory_order_acquire);
    if (now >> kRoundShift != round) return;
    if (!backoff.pause() || !crowded_ || ++offers < kOffersBeforeSleep) continue;
    // Those who wait take turns at the CPUs with those who are waited for: they go to sleep. Only
    // the last arrival wakes, so that a sleeper misses the others.
    state_.wait(now, std::memory_order_acquire);
  }
}

}  // namespace fusedrnn::cpu
