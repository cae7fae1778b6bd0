#include "cuda/runtime/fork.h"

#include <pthread.h>

#include <atomic>

#include "core/error.h"

namespace fusedrnn::cuda {
namespace {

constinit std::atomic<bool> used{false}, lost{false};

void note_fork() {
  if (used.load(std::memory_order_relaxed)) lost.store(true, std::memory_order_relaxed);
}

// While the library is loaded, and so before its first use.
[[maybe_unused]] const int fork_is_seen = pthread_atfork(nullptr, nullptr, note_fork);

}  // namespace

bool lost_by_fork() noexcept {
  if (!used.load(std::memory_order_relaxed)) used.store(true, std::memory_order_relaxed);
  return lost.load(std::memory_order_relaxed);
}

void require_own_process() {
  if (!lost_by_fork()) return;
  throw Error(FUSEDRNN_UNAVAILABLE,
              "CUDA cannot be used in a process that was forked from one that had used it: start "
              "it anew (in Python's multiprocessing: 'spawn' or 'forkserver')");
}

}  // namespace fusedrnn::cuda
