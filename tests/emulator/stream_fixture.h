// Streams, events and steps of work on them.
#pragma once

#include "fixture.h"
#include "kernels/steps.h"

namespace fixture {

inline void ok(cudaError_t status) { check(status, "a call of the runtime"); }

class TestStream {
 public:
  explicit TestStream(unsigned flags = cudaStreamNonBlocking) {
    ok(cudaStreamCreateWithFlags(&stream_, flags));
  }
  ~TestStream() { cudaStreamDestroy(stream_); }
  TestStream(const TestStream&) = delete;
  TestStream& operator=(const TestStream&) = delete;
  operator cudaStream_t() const { return stream_; }  // NOLINT: it stands for it

 private:
  cudaStream_t stream_ = nullptr;
};

class TestEvent {
 public:
  TestEvent() { ok(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming)); }
  ~TestEvent() { cudaEventDestroy(event_); }
  TestEvent(const TestEvent&) = delete;
  TestEvent& operator=(const TestEvent&) = delete;
  operator cudaEvent_t() const { return event_; }  // NOLINT: it stands for it

 private:
  cudaEvent_t event_ = nullptr;
};

// x = 2 x + add, on four numbers.
inline void step(float* x, float add, cudaStream_t stream) {
  fusedrnn::cuda::device::launch(fusedrnn::cuda::kernels::step, {.block = 4, .name = "step"},
                                 stream, x, add);
}

inline void copy(const float* from, float* to, cudaStream_t stream) {
  fusedrnn::cuda::device::launch(fusedrnn::cuda::kernels::copy, {.block = 4, .name = "copy"},
                                 stream, from, to);
}

inline void order(cudaStream_t earlier, cudaStream_t later) {
  const TestEvent event;
  ok(cudaEventRecord(event, earlier));
  ok(cudaStreamWaitEvent(later, event, 0));
}

// Whether the test's answer was the same in every one of some drawn orders.
template <class Test>
void check_some_order_is_wrong(const Test& right, const char* file, int line) {
  int wrong = 0;
  in_many_orders(30, [&] { wrong += right() ? 0 : 1; });
  if (wrong == 0) check::fail(file, line, "right in every order");
}

}  // namespace fixture

#define CHECK_SOME_ORDER_IS_WRONG(test) fixture::check_some_order_is_wrong(test, __FILE__, __LINE__)
