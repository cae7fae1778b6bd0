// A call of the emulated CUDA library with the arrays of a golden case.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/cuda_plugin.h"
#include "golden_file.h"

namespace backend_test {

using fusedrnn::CudaPlugin;
using golden::Array;
using golden::Arrays;
using golden::Case;

const CudaPlugin& plugin();

enum class Order {
  dense,
  padded,       // rows apart, and steps apart from one another
  batch_first,  // [T,B,n] as [B,T,n] in memory
  backwards,    // in memory the last row stands first
};

// An array in the emulator's memory, as rows [T,B,n]. A matrix is one step, a vector one row.
class DeviceArray {
 public:
  DeviceArray(const Array& host, Order order);
  ~DeviceArray();
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  void* data() const { return static_cast<char*>(memory_) + first_; }
  fusedrnn::Sequence sequence() const { return {data(), t_stride_, b_stride_}; }
  fusedrnn::Matrix matrix() const { return {data(), b_stride_}; }
  Array read() const;
  void write(const Array& host);

 private:
  template <class Copy>
  void for_rows(const Copy& copy) const;

  std::vector<int64_t> shape_;
  DLDataType type_;
  int64_t steps_ = 1, rows_ = 1, n_ = 1, item_;
  int64_t t_stride_, b_stride_;  // in elements
  size_t bytes_, first_ = 0;
  void* memory_;
};

struct Options {
  Order order = Order::dense;
  int32_t device = 0;
  void* stream = nullptr;
  const fusedrnn_allocator* allocator = nullptr;
  bool host_masks = false;
  bool accumulate_dx = false;  // onto ones
  fusedrnn::Compute compute = fusedrnn::Compute::same;
};

// The arrays of one case on the device, and calls with them.
class Call {
 public:
  Call(const Case& one, const Options& options);
  ~Call();
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  fusedrnn_status infer();
  fusedrnn_status forward();
  // Of the last forward(), on its stream or another.
  fusedrnn_status backward() { return backward(options_.stream); }
  fusedrnn_status backward(void* stream);
  void free_reserve();
  // Other values in all inputs, of the same shapes, at the same addresses.
  void write(const Case& other);
  // The array elsewhere, with other values: an argument's, or of a result NaN.
  void move(const std::string& name, const Array& values);
  // What the calls have written so far.
  Arrays outputs() const;

  // To change before the call is made.
  fusedrnn::ForwardCall& forward_call() { return forward_; }
  const fusedrnn::ForwardCall& forward_call() const { return forward_; }
  fusedrnn::BackwardCall& backward_call() { return backward_; }
  fusedrnn::CudaMasks& masks() { return call_masks_; }

 private:
  void add_mask(const std::string& name, const Array& values);
  const DLTensor* find_mask(const std::string& name) const;
  void set_addresses();
  // DropConnect, as the core does it: w_hh is dropped before a pass, its gradient after one.
  fusedrnn_status drop_weights(const fusedrnn::Matrix& from, const fusedrnn::Matrix& to) const;
  fusedrnn_status drop_weights(fusedrnn::Matrix* parameters) const;

  const Case& case_;
  const Options options_;
  std::map<std::string, std::unique_ptr<DeviceArray>> inputs_, outputs_;
  std::unique_ptr<DeviceArray> dropped_weights_;
  size_t recurrent_weights_ = 0;                    // which parameter w_hh is
  std::vector<std::unique_ptr<DeviceArray>> left_;  // where arrays were before they moved
  std::map<std::string, DLTensor> masks_;
  std::map<std::string, Array> host_masks_;
  fusedrnn::ForwardCall forward_;
  fusedrnn::BackwardCall backward_;
  fusedrnn::CudaMasks call_masks_;
  fusedrnn::CudaKept* kept_ = nullptr;  // the reserve of the last forward()
};

// As golden.py's cases, so that a check has what it names.
void require(fusedrnn_status status, const Case& one);

}  // namespace backend_test
