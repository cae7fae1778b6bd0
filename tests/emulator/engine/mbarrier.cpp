#include "engine/mbarrier.h"

#include "engine/kernel_run.h"
#include "engine/weak_memory.h"

namespace fusedrnn::emulator {

void MBarrierState::init(int arrivals) {
  if (arrivals < 1 || arrivals > kThreadsOfLargestBlock * 2) {
    fail("mbarrier_init: expected 1 to 2048 arrivals, got " + std::to_string(arrivals));
  }
  mark_ = kMark;
  phase_ = 0;
  expected_ = pending_ = static_cast<uint64_t>(arrivals) & 0xfffu;
  bytes_ = 0;
}

void MBarrierState::check(const char* what) const {
  if (mark_ != kMark) fail(std::string(what) + ": the mbarrier has not been initialised");
}

void MBarrierState::expect(int bytes) {
  check("mbarrier_arrive_expect");
  bytes_ += bytes;
}

void MBarrierState::arrive(const char* what) {
  check(what);
  if (pending_ == 0) {
    fail(std::string(what) + ": more than the " + std::to_string(static_cast<int>(expected_)) +
         " arrivals of a phase");
  }
  --pending_;
  end_phase_where_complete();
}

void MBarrierState::count(int bytes) {
  bytes_ -= bytes;
  end_phase_where_complete();
}

void MBarrierState::end_phase_where_complete() {
  if (pending_ != 0 || bytes_ != 0) return;
  phase_ ^= 1u;
  pending_ = expected_;
  self().block->run->progress();
}

void copy_later(MBarrierState* barrier, int bytes, std::function<void()> copy) {
  barrier->check("a bulk copy");
  self().block->run->add_copy([=] {
    copy();
    barrier->count(bytes);
  });
}

void wait_for_phase(const MBarrierState* barrier, int parity, const Where& where) {
  barrier->check("mbarrier_wait");
  Thread& thread = self();
  while (!barrier->phase_ended(parity)) thread.block->run->poll("mbarrier_wait", where);
  renew(thread);
}

}  // namespace fusedrnn::emulator
