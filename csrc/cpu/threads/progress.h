// How far the threads of one run have come, for the threads of another that read what it writes.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "cpu/threads/pool.h"

namespace fusedrnn::cpu {

class Progress {
 public:
  explicit Progress(int threads) : done_(static_cast<size_t>(threads)) {}

  // A thread of the run has done so many, and whoever waits for them sees what it wrote before.
  void report(int thread, int64_t count) noexcept;
  // Until all threads of the run have done at least so many. They must be running, or be about to
  // without the caller's doing.
  void wait(int64_t count) const noexcept;

 private:
  struct alignas(kFalseSharingBytes) Count {
    std::atomic<int64_t> value{0};
  };
  std::vector<Count> done_;
};

}  // namespace fusedrnn::cpu
