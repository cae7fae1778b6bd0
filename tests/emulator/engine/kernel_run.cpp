#include "engine/kernel_run.h"

#include <algorithm>
#include <numeric>

#include "engine/watchdog.h"

namespace fusedrnn::emulator {
namespace {

// Polls without anything happening that could end one.
constexpr uint64_t kMostPolls = uint64_t{1} << 21;

struct Failed {};  // what a thread that fails ends by

std::string text(const Index3& i) {
  return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")";
}

std::string name_of(const Thread& thread) {
  return "block " + text(thread.block->index) + ", thread " + std::to_string(thread.index);
}

}  // namespace

void fail(const std::string& what) { self().block->run->fail(what); }

KernelRun::KernelRun(const Kernel& kernel, uint64_t seed)
    : kernel_(kernel), kernel_seed_(seed), random_(seed) {}

std::string KernelRun::execute() {
  const Watchdog watchdog(kernel_.name.c_str());
  const auto& shape = kernel_.shape;
  const int64_t blocks = int64_t{shape.grid_x} * shape.grid_y * shape.grid_z;
  const int64_t together = shape.cooperative ? blocks : shape.cluster;
  for (int64_t i = 0; i < together; ++i) {
    blocks_.push_back(std::make_unique<Block>(this, shape.block, shape.shared_bytes));
  }
  std::vector<int64_t> group(static_cast<size_t>(together));
  for (const int64_t first : order_of_groups(blocks / together)) {
    std::iota(group.begin(), group.end(), first * together);
    run_group(group);
    if (!error_.empty()) break;
  }
  return error_;
}

std::vector<int64_t> KernelRun::order_of_groups(int64_t groups) {
  std::vector<int64_t> order(static_cast<size_t>(groups));
  std::iota(order.begin(), order.end(), 0);
  if (Random* const dice = random()) {
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[dice->below(i)]);
  }
  return order;
}

Index3 KernelRun::index_of(int64_t block) const {
  const auto& shape = kernel_.shape;
  const int64_t row = block / shape.grid_x;
  return {static_cast<int>(block % shape.grid_x), static_cast<int>(row % shape.grid_y),
          static_cast<int>(row / shape.grid_y)};
}

void KernelRun::run_group(const std::vector<int64_t>& group) {
  ready_.clear();
  ready_first_ = 0;
  for (size_t i = 0; i < group.size(); ++i) {
    Block& block = *blocks_[i];
    block.slot = static_cast<int>(i);
    block.begin(index_of(group[i]));
    for (int t = 0; t < block.thread_count; ++t) {
      ready_.push_back(&block.threads[static_cast<size_t>(t)]);
    }
  }
  live_ = ready_.size();
  polls_ = 0;
  run_until_ended();
}

void KernelRun::run_until_ended() {
  while (live_ != 0 && error_.empty()) {
    Thread* const thread = next_ready();
    if (thread == nullptr) {
      report_deadlock();
      break;
    }
    run_thread(*thread);
  }
  current_thread = nullptr;
  if (error_.empty() && !copies_.empty()) {
    error_ = "kernel " + kernel_.name + ": ended with bulk copies under way";
  }
  if (error_.empty()) {
    publish_stores();
  } else {
    clear();
  }
}

// The end of a kernel is a fence.
void KernelRun::publish_stores() {
  for (const auto& block : blocks_) {
    block->stores.publish();
    block->loaded.clear();
  }
}

Thread* KernelRun::next_ready() {
  if (ready_first_ == ready_.size()) return nullptr;
  if (Random* const dice = random()) {
    const size_t drawn = ready_first_ + dice->below(ready_.size() - ready_first_);
    std::swap(ready_[ready_first_], ready_[drawn]);
  }
  Thread* const thread = ready_[ready_first_++];
  if (ready_first_ > 4096 && ready_first_ > ready_.size() / 2) {
    ready_.erase(ready_.begin(), ready_.begin() + static_cast<std::ptrdiff_t>(ready_first_));
    ready_first_ = 0;
  }
  return thread;
}

void KernelRun::run_thread(Thread& thread) {
  current_thread = &thread;
  Watchdog::runs(thread);
  if (thread.begun) {
    thread.fiber.resume();
  } else {
    thread.begun = true;
    thread.fiber.start(&KernelRun::enter, &thread);
  }
}

void KernelRun::enter(void* argument) {
  Thread& thread = *static_cast<Thread*>(argument);
  KernelRun& run = *thread.block->run;
  try {
    run.kernel_.body();
    thread.block->thread_ended(thread);
  } catch (const Failed&) {
    return;
  }
  thread.state = Thread::State::ended;
  run.progress();
  --run.live_;
}

void KernelRun::wait_at(const Barrier& barrier, const Where& where) {
  Thread& thread = self();
  thread.state = Thread::State::waiting;
  thread.barrier = &barrier;
  thread.where = where;
  Fiber::suspend();
}

void KernelRun::wake(Thread& thread) {
  progress();
  thread.state = Thread::State::ready;
  thread.barrier = nullptr;
  ready_.push_back(&thread);
}

void KernelRun::poll(const char* what, const Where& where) {
  if (++polls_ > kMostPolls) {
    fail(std::string("waits for ever in ") + what + " at " + describe(where));
  }
  run_a_copy();
  ready_.push_back(&self());
  Fiber::suspend();
}

void KernelRun::maybe_let_others_run() {
  if (random() == nullptr || !random_.one_in(2)) return;
  ready_.push_back(&self());
  Fiber::suspend();
}

void KernelRun::run_a_copy() {
  if (copies_.empty()) return;
  const size_t chosen = random() == nullptr ? 0 : random_.below(copies_.size());
  const std::function<void()> copy = std::move(copies_[chosen]);
  copies_.erase(copies_.begin() + static_cast<std::ptrdiff_t>(chosen));
  copy();
}

void KernelRun::fail(const std::string& what) {
  error_ = "kernel " + kernel_.name + ", " + name_of(self()) + ": " + what;
  throw Failed{};
}

void KernelRun::report_deadlock() {
  for (const auto& block : blocks_) {
    for (int t = 0; t < block->thread_count; ++t) {
      const Thread& thread = block->threads[static_cast<size_t>(t)];
      if (thread.state != Thread::State::waiting) continue;
      error_ = "kernel " + kernel_.name + ", " + name_of(thread) + ": waits for ever at " +
               thread.barrier->describe() + ", " + describe(thread.where);
      return;
    }
  }
}

void KernelRun::clear() {
  for (const auto& block : blocks_) {
    for (int t = 0; t < block->thread_count; ++t) {
      block->threads[static_cast<size_t>(t)].fiber.abandon();
    }
  }
}

}  // namespace fusedrnn::emulator
