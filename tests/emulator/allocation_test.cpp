// Device memory: what is written where nothing is, what is used too early or too late.
#include <cmath>
#include <cstring>

#include "stream_fixture.h"

using namespace fixture;  // NOLINT: a test program
using fusedrnn::cuda::device::launch;
using fusedrnn::cuda::kernels::write_at;  // NOLINT

namespace {

float* allocated(size_t numbers) {
  float* memory = nullptr;
  ok(cudaMalloc(&memory, numbers * sizeof(float)));
  return memory;
}

float first_of(const float* memory) {
  float value = 0;
  ok(cudaMemcpy(&value, memory, sizeof value, cudaMemcpyDeviceToHost));
  return value;
}

void test_fresh_memory() {
  float* const memory = allocated(4);
  CHECK(std::isnan(first_of(memory)));
  CHECK(std::isnan(memory[4]) && std::isnan(memory[-1]));
  ok(cudaFree(memory));
  CHECK(std::isnan(memory[0]));
}

void test_stray_writes() {
  float* const memory = allocated(4);
  CHECK_ERROR(error_of_launch(write_at, {.block = 1, .name = "behind"}, memory, 4),
              "kernel behind: written behind the end of an allocation of 16 bytes");
  CHECK_ERROR(error_of_launch(write_at, {.block = 1, .name = "before"}, memory, -1),
              "kernel before: written before the start of an allocation of 16 bytes");
  std::memset(memory + 4, 0, 1);  // by the host
  CHECK_ERROR(error_of_work(), "written behind the end");
  ok(cudaFree(memory));
}

void test_use_after_release() {
  float* const memory = allocated(4);
  ok(cudaFree(memory));
  CHECK_EQUAL(error_of_launch(write_at, {.block = 1, .name = "late"}, memory, 0),
              "written after its release: an allocation of 16 bytes");
  CHECK_EQUAL(refusal(cudaMemset(memory, 0, 16)), "a memset of an address that is not allocated");
  CHECK_EQUAL(error_of_work(), "");
}

void test_wrong_releases() {
  const TestStream stream;
  float* const memory = allocated(4);
  ok(cudaFreeAsync(memory, stream));
  CHECK_EQUAL(refusal(cudaFreeAsync(memory, stream)),
              "a second release of an allocation of 16 bytes");
  CHECK_EQUAL(refusal(cudaFree(memory)), "a second release of an allocation of 16 bytes");
  ok(cudaStreamSynchronize(stream));
  CHECK_EQUAL(refusal(cudaFree(memory)), "release of an address that is not allocated");
  float* const other = allocated(4);
  CHECK_EQUAL(refusal(cudaFree(other + 1)), "release of an address that is not allocated");
  CHECK_EQUAL(refusal(cudaFreeAsync(other, reinterpret_cast<cudaStream_t>(other))),
              "a stream that does not exist");
  ok(cudaFree(other));
  float host = 0;
  CHECK_EQUAL(refusal(cudaFree(&host)), "release of an address that is not allocated");
}

// A stream's allocation begins and ends with the stream's work.
bool works_between(cudaStream_t owner, cudaStream_t user, bool ordered) {
  const DeviceArray<float> x(4, 1.0f), out(4, 0.0f);
  float* memory = nullptr;
  ok(cudaMallocAsync(&memory, 16, owner));
  if (ordered) order(owner, user);
  copy(x.data(), memory, user);
  copy(memory, out.data(), user);
  if (ordered) order(user, owner);
  ok(cudaFreeAsync(memory, owner));
  return error_of_work().empty() && out.read() == std::vector<float>(4, 1.0f);
}

void test_memory_of_streams() {
  const TestStream first, second;
  in_many_orders(20, [&] {
    CHECK(works_between(first, first, false));
    CHECK(works_between(first, second, true));
  });
  CHECK_SOME_ORDER_IS_WRONG([&] { return works_between(first, second, false); });
}

// What another stream writes before the allocating stream has come to the allocation may be lost.
bool written_early(cudaStream_t owner, cudaStream_t user) {
  const DeviceArray<float> x(4, 1.0f), out(4, 0.0f);
  float* memory = nullptr;
  ok(cudaMallocAsync(&memory, 16, owner));
  copy(x.data(), memory, user);
  order(user, owner);
  copy(memory, out.data(), owner);
  ok(cudaFreeAsync(memory, owner));
  return out.read() == std::vector<float>(4, 1.0f);
}

void test_memory_used_too_early() {
  const TestStream first, second;
  CHECK_SOME_ORDER_IS_WRONG([&] { return written_early(first, second); });
}

void test_ranges() {
  float* const memory = allocated(4);
  float host[8] = {};
  const TestStream stream;
  CHECK_EQUAL(refusal(cudaMemcpyAsync(host, host, 4, cudaMemcpyHostToDevice, stream)),
              "a copy whose addresses are not where its kind says");
  CHECK_EQUAL(refusal(cudaMemcpyAsync(host, memory, 4, cudaMemcpyDeviceToDevice, stream)),
              "a copy whose addresses are not where its kind says");
  ok(cudaMemcpyAsync(memory + 1, host, 16, cudaMemcpyHostToDevice, stream));
  CHECK_EQUAL(error_of_work(), "a copy's target: 16 bytes at 4 of an allocation of 16 bytes");
  ok(cudaMemsetAsync(memory, 0, 17, stream));
  CHECK_EQUAL(error_of_work(), "a memset: 17 bytes at 0 of an allocation of 16 bytes");
  CHECK_EQUAL(refusal(cudaMemcpy2DAsync(memory, 4, host, 8, 8, 1, cudaMemcpyDefault, stream)),
              "invalid pitch argument");
  ok(cudaFree(memory));
}

void test_running_out() {
  void* memory = nullptr;
  emulator_fail_allocation_after(1);
  ok(cudaMalloc(&memory, 16));
  void* other = nullptr;
  CHECK_EQUAL(cudaMalloc(&other, 16), cudaErrorMemoryAllocation);
  CHECK_EQUAL(cudaMallocAsync(&other, 16, nullptr), cudaErrorMemoryAllocation);
  emulator_fail_allocation_after(-1);
  CHECK_EQUAL(cudaGetLastError(), cudaErrorMemoryAllocation);
  CHECK_EQUAL(cudaGetLastError(), cudaSuccess);
  CHECK_EQUAL(cudaMalloc(&other, size_t{1} << 40), cudaErrorMemoryAllocation);
  ok(cudaFree(memory));
}

void test_addresses() {
  const size_t before = emulator_live_bytes();
  emulator_set_quarantine(0);
  float* const first = allocated(5);
  CHECK_EQUAL(emulator_live_bytes(), before + 20);
  CHECK_EQUAL(reinterpret_cast<uintptr_t>(first) % 256, 0u);
  ok(cudaFree(first));
  float* const second = allocated(6);
  CHECK(first == second);
  ok(cudaFree(second));
  emulator_set_quarantine(1 << 20);
  float* const third = allocated(5);
  ok(cudaFree(third));
  float* const fourth = allocated(5);
  CHECK(third != fourth);
  cudaPointerAttributes attributes;
  ok(cudaPointerGetAttributes(&attributes, fourth + 2));
  CHECK(attributes.type == cudaMemoryTypeDevice && attributes.device == 0);
  ok(cudaPointerGetAttributes(&attributes, &attributes));
  CHECK(attributes.type == cudaMemoryTypeUnregistered);
  ok(cudaFree(fourth));
  CHECK_EQUAL(emulator_live_bytes(), before);
}

}  // namespace

int main() {
  test_fresh_memory();
  test_stray_writes();
  test_use_after_release();
  test_wrong_releases();
  test_memory_of_streams();
  test_memory_used_too_early();
  test_ranges();
  test_running_out();
  test_addresses();
  return check::result();
}
