// Capture into graphs: what is captured, what is refused, what a graph owns.
#include "stream_fixture.h"

using namespace fixture;  // NOLINT: a test program

namespace {

void begin(cudaStream_t stream) { ok(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal)); }

cudaGraphExec_t end(cudaStream_t stream) {
  cudaGraph_t graph = nullptr;
  ok(cudaStreamEndCapture(stream, &graph));
  cudaGraphExec_t exec = nullptr;
  ok(cudaGraphInstantiate(&exec, graph, 0));
  ok(cudaGraphDestroy(graph));
  return exec;
}

std::string end_of_broken_capture(cudaStream_t stream) {
  cudaGraph_t graph = nullptr;
  const std::string text = refusal(cudaStreamEndCapture(stream, &graph));
  CHECK(graph == nullptr);
  return text;
}

void test_replays() {
  const TestStream stream;
  const DeviceArray<float> x(4, 0.0f);
  begin(stream);
  step(x.data(), 1, stream);
  step(x.data(), 3, stream);
  const cudaGraphExec_t exec = end(stream);
  CHECK(x.read() == std::vector<float>(4, 0.0f));
  ok(cudaGraphLaunch(exec, stream));
  CHECK(x.read() == std::vector<float>(4, 5.0f));
  ok(cudaGraphLaunch(exec, stream));
  CHECK(x.read() == std::vector<float>(4, 25.0f));
  ok(cudaGraphExecDestroy(exec));
}

// Launches of one executable follow one another, on whatever streams.
void test_launches_do_not_overlap() {
  const TestStream capturing, first, second;
  const DeviceArray<float> x(4, 0.0f);
  begin(capturing);
  step(x.data(), 1, capturing);
  step(x.data(), 3, capturing);
  const cudaGraphExec_t exec = end(capturing);
  ok(cudaGraphLaunch(exec, first));
  ok(cudaGraphLaunch(exec, second));
  ok(cudaGraphExecDestroy(exec));  // while they are queued
  CHECK(x.read() == std::vector<float>(4, 25.0f));
}

void fork_and_join(cudaStream_t origin, cudaStream_t other, float* x, float* y) {
  step(x, 1, origin);
  order(origin, other);
  copy(x, y, other);
  step(y, 3, other);
  order(other, origin);
  step(y, 7, origin);
}

void test_forks() {
  const TestStream origin, other;
  const DeviceArray<float> x(4, 0.0f), y(4, 0.0f);
  begin(origin);
  fork_and_join(origin, other, x.data(), y.data());
  const cudaGraphExec_t exec = end(origin);
  ok(cudaGraphLaunch(exec, origin));
  CHECK(y.read() == std::vector<float>(4, 17.0f));
  ok(cudaGraphExecDestroy(exec));
}

void test_unjoined() {
  const TestStream origin, other;
  const DeviceArray<float> x(4, 0.0f);
  begin(origin);
  step(x.data(), 1, origin);
  order(origin, other);
  step(x.data(), 3, other);
  CHECK_EQUAL(end_of_broken_capture(origin), "capturing stream has unjoined work");
  CHECK_EQUAL(refusal(cudaStreamSynchronize(other)), "");
}

// Each breaks the capture; the stream can be used again when that has ended.
template <class Call>
void check_breaks_capture(const char* text, const Call& call) {
  const TestStream stream(cudaStreamDefault);
  begin(stream);
  CHECK_EQUAL(refusal(call(stream)), std::string(text));
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  ok(cudaStreamIsCapturing(stream, &status));
  CHECK(status == cudaStreamCaptureStatusInvalidated);
  CHECK_EQUAL(end_of_broken_capture(stream),
              "operation failed due to a previous error during capture");
  ok(cudaStreamIsCapturing(stream, &status));
  CHECK(status == cudaStreamCaptureStatusNone);
  ok(cudaStreamSynchronize(stream));
}

void test_refusals() {
  const std::string refused = ": operation not permitted when stream is capturing";
  const DeviceArray<float> x(4, 0.0f);
  check_breaks_capture(("cudaStreamSynchronize" + refused).c_str(),
                       [](cudaStream_t stream) { return cudaStreamSynchronize(stream); });
  check_breaks_capture(("cudaStreamQuery" + refused).c_str(),
                       [](cudaStream_t stream) { return cudaStreamQuery(stream); });
  check_breaks_capture(("cudaDeviceSynchronize" + refused).c_str(),
                       [](cudaStream_t) { return cudaDeviceSynchronize(); });
  check_breaks_capture(("cudaMalloc" + refused).c_str(), [](cudaStream_t) {
    void* memory = nullptr;
    return cudaMalloc(&memory, 16);
  });
  check_breaks_capture(("cudaFree" + refused).c_str(),
                       [&](cudaStream_t) { return cudaFree(x.data()); });
  check_breaks_capture(
      "the legacy stream: operation would make the legacy stream depend on a capturing blocking "
      "stream",
      [&](cudaStream_t) { return cudaMemsetAsync(x.data(), 0, 16, nullptr); });
  check_breaks_capture(
      "cudaStreamWaitEvent: dependency created on uncaptured work in another stream",
      [](cudaStream_t stream) {
        const TestStream other;
        const TestEvent event;
        ok(cudaEventRecord(event, other));
        return cudaStreamWaitEvent(stream, event, 0);
      });
  check_breaks_capture(
      "cudaEventQuery: operation not permitted on an event last recorded in a capturing stream",
      [](cudaStream_t stream) {
        const TestEvent event;
        ok(cudaEventRecord(event, stream));
        return cudaEventQuery(event);
      });
  check_breaks_capture(
      "cudaFreeAsync in a capture, of memory allocated outside of it: invalid argument",
      [&](cudaStream_t stream) { return cudaFreeAsync(x.data(), stream); });
}

void test_what_is_allowed() {
  const TestStream capturing, other;
  const DeviceArray<float> x(4, 0.0f);
  begin(capturing);
  step(x.data(), 1, other);  // no part of it
  ok(cudaStreamSynchronize(other));
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  ok(cudaThreadExchangeStreamCaptureMode(&mode));
  void* memory = nullptr;
  ok(cudaMalloc(&memory, 16));
  ok(cudaThreadExchangeStreamCaptureMode(&mode));
  CHECK(mode == cudaStreamCaptureModeRelaxed);
  CHECK_EQUAL(refusal(cudaStreamBeginCapture(capturing, mode)), "the stream is captured already");
  ok(cudaGraphExecDestroy(end(capturing)));
  ok(cudaFree(memory));
  CHECK_EQUAL(refusal(cudaStreamBeginCapture(nullptr, mode)), "capture of the legacy stream");
}

void test_memory_of_graphs() {
  const TestStream stream;
  const size_t before = emulator_live_bytes();
  {
    const DeviceArray<float> x(4, 1.0f), y(4, 0.0f);
    begin(stream);
    float* memory = nullptr;
    ok(cudaMallocAsync(&memory, 16, stream));
    copy(x.data(), memory, stream);
    copy(memory, y.data(), stream);
    ok(cudaFreeAsync(memory, stream));
    const cudaGraphExec_t exec = end(stream);
    for (int i = 0; i < 2; ++i) {
      ok(cudaMemset(y.data(), 0, 16));
      ok(cudaGraphLaunch(exec, stream));
      CHECK(y.read() == std::vector<float>(4, 1.0f));
    }
    CHECK_EQUAL(emulator_live_bytes(), before + 48);
    ok(cudaGraphExecDestroy(exec));
  }
  CHECK_EQUAL(emulator_live_bytes(), before);
}

void test_memory_that_a_graph_keeps() {
  const TestStream stream;
  begin(stream);
  float* memory = nullptr;
  ok(cudaMallocAsync(&memory, 16, stream));
  const cudaGraphExec_t exec = end(stream);
  ok(cudaGraphLaunch(exec, stream));
  ok(cudaStreamSynchronize(stream));
  ok(cudaGraphLaunch(exec, stream));
  CHECK_EQUAL(error_of_work(), "a graph allocates memory that its last launch has not released");
  ok(cudaGraphExecDestroy(exec));
}

void test_user_objects() {
  const TestStream stream;
  int destroyed = 0;
  const auto destroy = [](void* count) {
    *static_cast<int*>(count) += cudaFree(nullptr) == cudaErrorNotPermitted ? 1 : 100;
  };
  begin(stream);
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  cudaGraph_t graph = nullptr;
  ok(cudaStreamGetCaptureInfo(stream, &status, nullptr, &graph));
  cudaUserObject_t object = nullptr;
  ok(cudaUserObjectCreate(&object, &destroyed, destroy, 1, cudaUserObjectNoDestructorSync));
  ok(cudaGraphRetainUserObject(graph, object, 1, cudaGraphUserObjectMove));
  const cudaGraphExec_t exec = end(stream);
  ok(cudaGraphLaunch(exec, stream));
  ok(cudaStreamSynchronize(stream));
  CHECK_EQUAL(destroyed, 0);
  ok(cudaGraphExecDestroy(exec));
  CHECK_EQUAL(destroyed, 1);
}

}  // namespace

int main() {
  in_many_orders(20, [] {
    test_replays();
    test_launches_do_not_overlap();
    test_forks();
    test_memory_of_graphs();
  });
  test_unjoined();
  test_refusals();
  test_what_is_allowed();
  test_memory_that_a_graph_keeps();
  test_user_objects();
  return check::result();
}
