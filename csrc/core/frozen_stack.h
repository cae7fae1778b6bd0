// Frozen layers of one direction, one above the other, that take a step together.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/frozen.h"
#include "core/problem.h"

namespace fusedrnn {

// Every array is dense. next[s] may be prev[s]; otherwise what is written shares no memory with
// anything else, but y, which is written last, may share it with x and prev.
struct StackStep {
  int64_t B = 0;
  const void* x = nullptr;            // [B,I]
  const void* prev[kMaxStates] = {};  // [L,B,H]; null: zero
  void* next[kMaxStates] = {};        // [L,B,H]
  void* y = nullptr;                  // [B,H], the last layer's output: also the end of next[0]
};

class FrozenStack {
 public:
  using Layers = std::vector<std::shared_ptr<const fusedrnn_frozen>>;

  // Throws where the layers, from the first to the last, do not fit on one another.
  explicit FrozenStack(Layers layers);
  ~FrozenStack();
  FrozenStack(const FrozenStack&) = delete;
  FrozenStack& operator=(const FrozenStack&) = delete;

  const fusedrnn_frozen& first() const { return *layers_.front(); }
  Dtype dtype() const { return first().problem.dtype; }
  int64_t input_size() const { return first().problem.I; }
  int64_t hidden_size() const { return first().problem.H; }
  int64_t num_layers() const { return static_cast<int64_t>(layers_.size()); }
  int states() const { return states_; }
  int64_t work() const { return work_; }  // multiply-adds of a step of one sequence

  // Any number of threads may call it. Allocates nothing once it has run with as many sequences,
  // except for what runs beside another call or on a team of threads.
  void step(const StackStep& call) const;

 private:
  class Workspace;
  class Lease;

  Layers layers_;
  int states_ = 0;
  int64_t work_ = 0;
  // The workspace of the last step, for the next: taken by an exchange, so that nobody waits. A
  // step that finds it taken makes its own.
  mutable std::atomic<Workspace*> spare_{nullptr};
};

}  // namespace fusedrnn
