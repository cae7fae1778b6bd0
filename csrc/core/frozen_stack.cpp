#include "core/frozen_stack.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "core/cell_info.h"
#include "core/error.h"
#include "core/memory.h"
#include "core/tensor.h"
#include "core/tensor_checks.h"

namespace fusedrnn {

class FrozenStack::Workspace {
 public:
  explicit Workspace(size_t bytes) : bytes_(bytes), block_(bytes) {}
  size_t bytes() const { return bytes_; }
  void* data() const { return block_.data(); }

 private:
  size_t bytes_;
  Block block_;
};

// A workspace of at least `bytes` while it lives.
class FrozenStack::Lease {
 public:
  Lease(std::atomic<Workspace*>& spare, size_t bytes)
      : spare_(spare), own_(spare.exchange(nullptr, std::memory_order_acquire)) {
    if (own_ == nullptr || own_->bytes() < bytes) own_ = std::make_unique<Workspace>(bytes);
  }
  ~Lease() { delete spare_.exchange(own_.release(), std::memory_order_acq_rel); }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  void* data() const { return own_->data(); }

 private:
  std::atomic<Workspace*>& spare_;
  std::unique_ptr<Workspace> own_;
};

FrozenStack::FrozenStack(Layers layers) : layers_(std::move(layers)) {
  if (layers_.empty()) throw_value_error("layers: expected at least one, got none");
  const Problem& first = layers_.front()->problem;
  states_ = find_cell(first.cell)->states;
  for (size_t k = 0; k < layers_.size(); ++k) {
    const Problem& p = layers_[k]->problem;
    const bool fits = p.cell == first.cell && p.dtype == first.dtype && p.H == first.H &&
                      (k == 0 || p.I == first.H);
    if (!fits) {
      throw_value_error(expected("layers", "layers that fit on one another",
                                 "another problem at index " + std::to_string(k)));
    }
    work_ += step_work(p);
  }
}

FrozenStack::~FrozenStack() { delete spare_.load(std::memory_order_acquire); }

void FrozenStack::step(const StackStep& stack) const {
  if (stack.B == 0) return;
  const size_t row = static_cast<size_t>(stack.B * hidden_size() * item_size(dtype()));
  size_t bytes = row;  // a team's output; see step_with_threads
  for (const auto& layer : layers_) bytes = std::max(bytes, step_workspace(*layer, stack.B));
  const Lease workspace(spare_, bytes);

  StepCall call;
  call.B = stack.B;
  call.x = stack.x;
  for (int s = 0; s < states_; ++s) {
    call.prev[s] = stack.prev[s];
    call.next[s] = stack.next[s];
  }
  for (const auto& layer : layers_) {
    if (step_pays_threads(layer->problem)) {
      step_with_threads(*layer, call, workspace.data());
    } else {
      step_alone(*layer, call, workspace.data());
    }
    call.x = call.next[0];
    for (int s = 0; s < states_; ++s) {
      if (call.prev[s] != nullptr) call.prev[s] = static_cast<const char*>(call.prev[s]) + row;
      call.next[s] = static_cast<char*>(call.next[s]) + row;
    }
  }
  std::memcpy(stack.y, call.x, row);
}

}  // namespace fusedrnn
