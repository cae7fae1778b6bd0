// What the emulator's tests share: arrays on the device, and what a launch ends with.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "cuda/device/launch.h"
#include "emulator.h"

namespace fixture {

using fusedrnn::cuda::check;
using fusedrnn::cuda::device::LaunchShape;

template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(const std::vector<T>& values) : size_(values.size()) {
    check(cudaMalloc(&data_, size_ * sizeof(T)), "cudaMalloc");
    check(
        static_cast<cudaError_t>(emulator_copy_to_device(data_, values.data(), size_ * sizeof(T))),
        "emulator_copy_to_device");
  }
  explicit DeviceArray(size_t size, T value = T()) : DeviceArray(std::vector<T>(size, value)) {}
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() const { return data_; }
  // Behind all work of the device.
  std::vector<T> read() const {
    std::vector<T> values(size_);
    check(static_cast<cudaError_t>(
              emulator_copy_from_device(values.data(), data_, size_ * sizeof(T))),
          "emulator_copy_from_device");
    return values;
  }

 private:
  T* data_ = nullptr;
  size_t size_;
};

// The error that the device's work ends with, which is then forgotten; "" for none.
inline std::string error_of_work() {
  cudaDeviceSynchronize();
  const std::string text = emulator_last_error();
  emulator_reset_error();
  return text;
}

template <class... P, class... A>
std::string error_of_launch(void (*kernel)(P...), const LaunchShape& shape, A&&... args) {
  fusedrnn::cuda::device::launch(kernel, shape, nullptr, std::forward<A>(args)...);
  return error_of_work();
}

// The text of a call that the runtime refuses; "" where it does not.
inline std::string refusal(cudaError_t status) {
  const std::string text = status == cudaSuccess ? "" : cudaGetErrorString(status);
  cudaGetLastError();
  return text;
}

// Runs the test in order, and then in `count` drawn orders.
template <class Test>
void in_many_orders(int count, const Test& test) {
  for (int seed = 0; seed <= count; ++seed) {
    emulator_set_seed(static_cast<uint64_t>(seed));
    test();
  }
  emulator_set_seed(0);
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace fixture

// The error names the kernel and, among other things, says all of this.
#define CHECK_ERROR(error, ...)                                                           \
  do {                                                                                    \
    const std::string text = (error);                                                     \
    for (const std::string part : {__VA_ARGS__}) {                                        \
      if (!fixture::contains(text, part)) {                                               \
        check::fail(__FILE__, __LINE__, "expected \"" + part + "\" in \"" + text + "\""); \
      }                                                                                   \
    }                                                                                     \
  } while (false)
