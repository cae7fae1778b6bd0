// Kernels that are right: what they compute, in order and in drawn orders.
#include <vector>

#include "check.h"
#include "cuda/device/launch.h"
#include "cuda/device/math.h"
#include "cuda/device/number.h"
#include "cuda/device/shared.h"
#include "cuda/device/shuffle.h"
#include "cuda/device/sync.h"
#include "cuda/device/thread.h"
#include "emulator.h"

namespace fusedrnn::cuda {
namespace {

using device::launch;
using device::Shared;
using device::SharedMemory;

template <class T>
__global__ void __launch_bounds__(128) reverse(const T* in, T* out) {
  SharedMemory memory;
  const Shared<T> values = memory.take<T>(device::threads());
  const int first = device::block_x() * device::threads(), t = device::thread();
  values[t] = in[first + t];
  device::sync_threads();
  out[first + t] = values[device::threads() - 1 - t];
}

__global__ void sum(const float* in, float* out) {
  float x = in[device::block_x() * device::threads() + device::thread()];
  for (int mask = 16; mask > 0; mask /= 2) x += device::shuffle_xor(x, mask);
  SharedMemory memory;
  const Shared<float> parts = memory.take<float>(device::threads() / device::kWarp);
  if (device::lane() == 0) parts[device::warp()] = x;
  device::sync_threads();
  if (device::thread() == 0) {
    float total = 0;
    for (int i = 0; i < device::threads() / device::kWarp; ++i) total += parts[i];
    out[device::block_x()] = total;
  }
}

template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(const std::vector<T>& values) : size_(values.size()) {
    check(cudaMalloc(&data_, size_ * sizeof(T)), "cudaMalloc");
    emulator_copy_to_device(data_, values.data(), size_ * sizeof(T));
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  T* data() const { return data_; }
  std::vector<T> read() const {
    std::vector<T> values(size_);
    check(cudaMemcpy(values.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost),
          "cudaMemcpy");
    return values;
  }

 private:
  T* data_ = nullptr;
  size_t size_;
};

void test_reverse() {
  std::vector<float> values(256), expected(256);
  for (int i = 0; i < 256; ++i) {
    values[static_cast<size_t>(i)] = static_cast<float>(i);
    expected[static_cast<size_t>(i / 128 * 128 + 127 - i % 128)] = static_cast<float>(i);
  }
  const DeviceArray<float> in(values), out(std::vector<float>(256));
  launch(reverse<float>, {.grid_x = 2, .shared_bytes = 512, .name = "reverse"}, nullptr, in.data(),
         out.data());
  CHECK(out.read() == expected);
}

void test_sum() {
  const DeviceArray<float> in(std::vector<float>(384, 0.5f)), out(std::vector<float>(3));
  launch(sum, {.grid_x = 3, .shared_bytes = 16, .name = "sum"}, nullptr, in.data(), out.data());
  CHECK(out.read() == std::vector<float>(3, 64.0f));
}

}  // namespace
}  // namespace fusedrnn::cuda

int main() {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    emulator_set_seed(seed);
    fusedrnn::cuda::test_reverse();
    fusedrnn::cuda::test_sum();
  }
  return check::result();
}
