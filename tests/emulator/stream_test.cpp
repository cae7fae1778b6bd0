// The order of work on streams: what is promised holds in every drawn order, what is not fails in
// some.
#include "stream_fixture.h"

using namespace fixture;                         // NOLINT: a test program
using fusedrnn::cuda::kernels::from_parameters;  // NOLINT
using fusedrnn::cuda::kernels::Parameters;       // NOLINT

namespace {

constexpr float kBoth = 5;  // of 0: first 2 x + 1, then 2 x + 3

bool two_steps(cudaStream_t first, cudaStream_t second, bool event) {
  const DeviceArray<float> x(4, 0.0f);
  step(x.data(), 1, first);
  if (event) order(first, second);
  step(x.data(), 3, second);
  return x.read() == std::vector<float>(4, kBoth);
}

void test_one_stream() {
  const TestStream stream;
  CHECK(two_steps(stream, stream, false));
}

void test_events() {
  const TestStream first, second;
  CHECK(two_steps(first, second, true));
}

void test_the_legacy_stream() {
  const TestStream blocking(cudaStreamDefault);
  CHECK(two_steps(nullptr, blocking, false));
  CHECK(two_steps(blocking, nullptr, false));
  CHECK(two_steps(blocking, cudaStreamLegacy, false));
  CHECK(two_steps(cudaStreamPerThread, nullptr, false));
}

void test_a_record_again_does_not_move_those_who_wait() {
  const TestStream first, second;
  const TestEvent event;
  const DeviceArray<float> x(4, 0.0f);
  step(x.data(), 1, first);
  ok(cudaEventRecord(event, first));
  ok(cudaStreamWaitEvent(second, event, 0));
  ok(cudaEventRecord(event, second));
  step(x.data(), 3, second);
  CHECK(x.read() == std::vector<float>(4, kBoth));
}

void test_forgotten_events() {
  const TestStream first, second, blocking(cudaStreamDefault);
  CHECK_SOME_ORDER_IS_WRONG([&] { return two_steps(first, second, false); });
  CHECK_SOME_ORDER_IS_WRONG([&] { return two_steps(nullptr, second, false); });
  CHECK_SOME_ORDER_IS_WRONG([&] { return two_steps(first, blocking, false); });
}

// An event that was never recorded orders nothing; one recorded too early not enough.
void test_events_recorded_too_early() {
  const TestStream first, second;
  CHECK_SOME_ORDER_IS_WRONG([&] {
    const DeviceArray<float> x(4, 0.0f);
    const TestEvent event;
    ok(cudaEventRecord(event, first));
    step(x.data(), 1, first);
    ok(cudaStreamWaitEvent(second, event, 0));
    step(x.data(), 3, second);
    return x.read() == std::vector<float>(4, kBoth);
  });
}

void test_work_runs_late() {
  const TestStream stream;
  const DeviceArray<float> x(4, 0.0f);
  const int64_t before = emulator_launches();
  step(x.data(), 1, stream);
  CHECK_EQUAL(emulator_launches(), before);
  while (cudaStreamQuery(stream) == cudaErrorNotReady) {
  }
  cudaGetLastError();
  CHECK_EQUAL(emulator_launches(), before + 1);
}

void test_parameters_are_copied() {
  const TestStream stream;
  const DeviceArray<float> out(64);
  auto parameters = std::make_unique<Parameters>();
  for (int i = 0; i < 64; ++i) parameters->numbers[i] = static_cast<float>(i);
  fusedrnn::cuda::device::launch(from_parameters, {.block = 64, .name = "parameters"}, stream,
                                 *parameters, out.data());
  *parameters = {};
  CHECK_EQUAL(out.read()[63], 63.0f);
}

// Host memory is read when the copy runs: what a call leaves behind must live until then.
void test_host_memory_that_is_gone() {
  const TestStream stream;
  const DeviceArray<float> x(4);
  std::vector<float> values(4, 1.0f);
  ok(cudaMemcpyAsync(x.data(), values.data(), 16, cudaMemcpyHostToDevice, stream));
  values.assign(4, 9.0f);
  CHECK(x.read() == std::vector<float>(4, 9.0f));
}

void test_copies() {
  const TestStream stream;
  const DeviceArray<float> x(std::vector<float>{1, 2, 3, 4, 5, 6}), y(4, 0.0f);
  ok(cudaMemcpy2DAsync(y.data(), 8, x.data(), 12, 8, 2, cudaMemcpyDeviceToDevice, stream));
  CHECK(y.read() == (std::vector<float>{1, 2, 4, 5}));
  ok(cudaMemsetAsync(y.data() + 1, 0, 8, stream));
  CHECK(y.read() == (std::vector<float>{1, 0, 0, 5}));
}

void test_host_functions() {
  const TestStream stream;
  int status = -1;
  ok(cudaLaunchHostFunc(
      stream, [](void* to) { *static_cast<int*>(to) = cudaStreamSynchronize(nullptr); }, &status));
  ok(cudaStreamSynchronize(stream));
  CHECK_EQUAL(status, static_cast<int>(cudaErrorNotPermitted));
}

void test_handles() {
  cudaStream_t stream = nullptr;
  ok(cudaStreamCreate(&stream));
  ok(cudaStreamDestroy(stream));
  CHECK_EQUAL(refusal(cudaStreamSynchronize(stream)), "a stream that does not exist");
  CHECK_EQUAL(refusal(cudaStreamDestroy(stream)), "a stream that does not exist");
  cudaEvent_t event = nullptr;
  ok(cudaEventCreate(&event));
  ok(cudaEventDestroy(event));
  CHECK_EQUAL(refusal(cudaEventRecord(event, nullptr)), "an event that does not exist");
}

void test_devices() {
  emulator_set_devices(2);
  const TestStream first;
  ok(cudaSetDevice(1));
  const DeviceArray<float> x(4, 0.0f);
  try {
    step(x.data(), 1, first);
    check::fail(__FILE__, __LINE__, "launched on another device's stream");
  } catch (const fusedrnn::Error& error) {
    CHECK_ERROR(error.what(), "launch of step: a launch on a stream of another device");
  }
  const TestEvent event;
  CHECK_EQUAL(refusal(cudaEventRecord(event, first)), "an event and a stream of different devices");
  CHECK_EQUAL(refusal(cudaSetDevice(2)), "invalid device ordinal");
  ok(cudaSetDevice(0));
  ok(cudaFree(nullptr));
  emulator_set_devices(0);
  int count = -1;
  CHECK_EQUAL(refusal(cudaGetDeviceCount(&count)), "no CUDA-capable device is detected");
  emulator_set_devices(1);
}

void test_errors_stay() {
  const TestStream stream;
  const DeviceArray<float> x(4, 0.0f);
  fusedrnn::cuda::device::launch(fusedrnn::cuda::kernels::write_at, {.block = 1, .name = "stray"},
                                 stream, x.data(), 4);
  step(x.data(), 1, stream);
  const std::string error = "kernel stray: written behind the end of an allocation of 16 bytes";
  CHECK_EQUAL(std::string(cudaGetErrorString(cudaStreamSynchronize(stream))), error);
  void* memory = nullptr;
  CHECK_EQUAL(std::string(cudaGetErrorString(cudaMalloc(&memory, 4))), error);
  CHECK_EQUAL(cudaGetLastError(), cudaErrorIllegalAddress);
  CHECK_EQUAL(cudaGetLastError(), cudaErrorIllegalAddress);
  CHECK_EQUAL(std::string(emulator_last_error()), error);
  emulator_reset_error();
}

}  // namespace

int main() {
  in_many_orders(20, [] {
    test_one_stream();
    test_events();
    test_the_legacy_stream();
    test_a_record_again_does_not_move_those_who_wait();
    test_copies();
  });
  test_forgotten_events();
  test_events_recorded_too_early();
  test_work_runs_late();
  test_parameters_are_copied();
  test_host_memory_that_is_gone();
  test_host_functions();
  test_handles();
  test_devices();
  test_errors_stay();
  return check::result();
}
