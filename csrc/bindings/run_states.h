// States of all runs, which callers have in one array for each state of the cell, as core takes
// them: a tensor for each run's part.
#pragma once

#include <algorithm>
#include <vector>

#include "bindings/array_view.h"
#include "core/memory.h"
#include "core/network.h"
#include "core/tensor.h"

namespace fusedrnn::bindings {

// Whether a run writes the last row.
inline bool writes_y(const Network& network, const Run& run) {
  return run.writes + 1 == network.rows.size();
}
inline int64_t count_writing_y(const Network& network) {
  return std::ranges::count_if(network.runs,
                               [&](const Run& run) { return writes_y(network, run); });
}

// The parts refer to the whole's memory and hold their own shapes.
class RunStates {
 public:
  explicit RunStates(const Network& network) : network_(network) {}
  RunStates(RunStates&&) = default;  // the parts stay where they are
  RunStates& operator=(RunStates&&) = delete;

  // [runs,...], of a rank and with as many runs as there are.
  void cut_runs(int state, const DLTensor& whole) {
    for (const Run& run : network_.runs) {
      const int64_t before = network_.number_of(run) * stride_of(whole, 0);
      add(run, state, whole, before).remove_axis(0);
    }
  }

  // [T,B,columns], those of the runs that write y side by side.
  void cut_columns(int state, const DLTensor& whole) {
    int64_t before = 0;
    for (const Run& run : network_.runs) {
      if (!writes_y(network_, run)) continue;
      TensorView& part = add(run, state, whole, before * stride_of(whole, 2));
      before += part.shape[2] = run.state_size(state);
    }
  }

  // Null where nothing was cut.
  DLTensor* const* list() const { return list_.empty() ? nullptr : list_.data(); }

 private:
  // `offset`: of its first element.
  TensorView& add(const Run& run, int state, const DLTensor& whole, int64_t offset) {
    if (list_.empty()) {
      const auto count = static_cast<size_t>(network_.num_states);
      parts_ = SmallVector<TensorView>(count);
      list_.resize(count, nullptr);
    }
    const auto number = static_cast<size_t>(run.first_state + state);
    TensorView& part = parts_[number];
    part.view(whole);
    if (part.tensor.data != nullptr) {
      part.tensor.data = static_cast<char*>(part.tensor.data) + offset * item_size(whole);
    }
    list_[number] = &part.tensor;
    return part;
  }

  const Network& network_;
  SmallVector<TensorView> parts_;
  std::vector<DLTensor*> list_;
};

}  // namespace fusedrnn::bindings
