// Work that was given to streams and has not run yet. It runs on the thread that waits for it.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "engine/random.h"

namespace fusedrnn::emulator {

// A piece of work and what must be done before it.
struct Operation {
  std::function<void()> run;  // empty: a mark in a stream. Throws Fault.
  std::vector<std::shared_ptr<Operation>> before;
  bool done = false;

  bool ready() const;
};
using Work = std::shared_ptr<Operation>;

class Queue {
 public:
  // Seed 0: work runs as it was given. Another: any order that streams and events allow.
  void set_seed(uint64_t seed);

  void add(Work work);
  void run_until(const Work& work);  // null: nothing
  void run_all();
  void run_one();
  void discard();  // after an error: nothing more runs

 private:
  size_t choose();

  std::deque<Work> pending_;  // in the order in which it was given
  uint64_t seed_ = 0;
  Random random_{0};
};

}  // namespace fusedrnn::emulator
