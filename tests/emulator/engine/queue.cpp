#include "engine/queue.h"

#include <algorithm>

namespace fusedrnn::emulator {
namespace {

constexpr size_t kMostPending = 8192;  // a device's queues are not endless either
constexpr size_t kChoice = 256;        // how far ahead of the oldest work another may run

}  // namespace

bool Operation::ready() const {
  return std::all_of(before.begin(), before.end(), [](const Work& work) { return work->done; });
}

void Queue::set_seed(uint64_t seed) {
  seed_ = seed;
  random_ = Random(seed);
}

void Queue::add(Work work) {
  pending_.push_back(std::move(work));
  while (pending_.size() > kMostPending) run_one();
}

void Queue::run_until(const Work& work) {
  while (work != nullptr && !work->done) run_one();
}

void Queue::run_all() {
  while (!pending_.empty()) run_one();
}

void Queue::run_one() {
  if (pending_.empty()) return;
  const auto chosen = pending_.begin() + static_cast<std::ptrdiff_t>(choose());
  const Work work = *chosen;
  pending_.erase(chosen);
  work->done = true;
  work->before.clear();
  if (work->run) work->run();
  work->run = nullptr;
}

void Queue::discard() {
  for (const Work& work : pending_) {
    work->done = true;
    work->before.clear();
    work->run = nullptr;
  }
  pending_.clear();
}

// The oldest is always ready: work waits only for work that was given before it.
size_t Queue::choose() {
  if (seed_ == 0) return 0;
  std::vector<size_t> ready;
  for (size_t i = 0; i < std::min(pending_.size(), kChoice); ++i) {
    if (pending_[i]->ready()) ready.push_back(i);
  }
  return ready[random_.below(ready.size())];
}

}  // namespace fusedrnn::emulator
