#include "engine/watchdog.h"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "engine/block.h"

namespace fusedrnn::emulator {
namespace {

// What the kernels' host thread says, and the watchdog's thread reads at any time.
struct State {
  std::atomic<const char*> kernel{nullptr};
  std::atomic<uint64_t> stretches{0};
  std::atomic<int> block[3]{};
  std::atomic<int> thread{0};
};

State& state() {
  static auto* const process = new State;  // outlives the watchdog's thread
  return *process;
}

// FUSEDRNN_EMULATOR_TIMEOUT, in seconds.
int seconds_of_a_stretch() {
  constexpr int kDefault = 60;
  const char* const text = std::getenv("FUSEDRNN_EMULATOR_TIMEOUT");
  return text == nullptr ? kDefault : std::atoi(text);
}

void watch() {
  const State& s = state();
  const int limit = seconds_of_a_stretch();
  uint64_t seen = 0;
  for (int seconds = 0;; ++seconds) {
    const uint64_t now = s.stretches;
    if (s.kernel.load() == nullptr || now != seen) seconds = 0;
    seen = now;
    if (seconds > limit) {
      std::fprintf(stderr,
                   "emulator: kernel %s, block (%d, %d, %d), thread %d: has run for %d s without "
                   "waiting for anything\n",
                   s.kernel.load(), s.block[0].load(), s.block[1].load(), s.block[2].load(),
                   s.thread.load(), seconds);
      std::abort();
    }
    std::this_thread::sleep_for(std::chrono::seconds(1));
  }
}

}  // namespace

Watchdog::Watchdog(const char* kernel) {
  static const bool watched = [] {
    std::thread(watch).detach();
    return true;
  }();
  static_cast<void>(watched);
  state().kernel = kernel;
}

Watchdog::~Watchdog() { state().kernel = nullptr; }

void Watchdog::runs(const Thread& thread) {
  constexpr auto relaxed = std::memory_order_relaxed;
  State& s = state();
  s.stretches.store(s.stretches.load(relaxed) + 1, relaxed);
  s.block[0].store(thread.block->index.x, relaxed);
  s.block[1].store(thread.block->index.y, relaxed);
  s.block[2].store(thread.block->index.z, relaxed);
  s.thread.store(thread.index, relaxed);
}

}  // namespace fusedrnn::emulator
