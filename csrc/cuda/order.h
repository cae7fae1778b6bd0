// The order of a call's sequences, where their lengths are known on the host: as the CPU engine's
// (cpu/kernels/sequences.h), the sequences lie in the order of their ends, long ones first, so that
// those that live at a step are its first rows, and launches are as long as what lives.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <vector>

#include "core/problem.h"
#include "cuda/kernels/order.h"
#include "cuda/runtime/graphs.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn::cuda {

// Whether a tensor lies in memory of the host; null: it does not.
bool on_host(const DLTensor* t);

class Order {
 public:
  // No order: every sequence lives at every step.
  explicit Order(const Problem& p) : T_(p.T), B_(p.B) {}
  // `lengths`: of the call, or null. There is no order where the device alone knows them, where all
  // are zero, and where too few steps are missing to make up for what an order costs: launches
  // that depend on the lengths, which a graph replays only for the same lengths.
  Order(const Problem& p, const DLTensor* lengths);
  Order(const Order&) = delete;
  Order& operator=(const Order&) = delete;

  bool any() const { return !numbers_.empty(); }
  // The time after the last step that lives.
  int64_t end() const { return any() ? ends_.front() : T_; }
  // How many sequences live at a time: the first ones.
  int64_t living(int64_t time) const {
    return any()
               ? first_rows_[static_cast<size_t>(time) + 1] - first_rows_[static_cast<size_t>(time)]
               : B_;
  }
  // Rows that live, of all times before this one.
  int64_t first_row(int64_t time) const {
    return any() ? first_rows_[static_cast<size_t>(time)] : time * B_;
  }
  int64_t rows(int64_t time, int64_t steps) const {
    return first_row(time + steps) - first_row(time);
  }

  // What launches depend on; which sequence lies where is no part of it.
  void add_to(GraphKey& key) const;
  // Writes it on the device, within launches. Where there is none nothing is written.
  void send(const DeviceOrder& to, cudaStream_t stream) const;

 private:
  const int64_t T_, B_;
  std::vector<int64_t> numbers_, ends_;  // by place
  std::vector<int64_t> first_rows_;      // [T+1]
};

}  // namespace fusedrnn::cuda
