#include "emulator.h"

#include <cuda_runtime.h>

#include "engine/runtime.h"

using fusedrnn::emulator::Runtime;
using fusedrnn::emulator::runtime;

namespace {

cudaStream_t stream_of(void* stream) { return static_cast<cudaStream_t>(stream); }

int copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  if (bytes == 0) return cudaSuccess;
  if (const cudaError_t error = cudaDeviceSynchronize()) return error;
  return cudaMemcpy(to, from, bytes, kind);
}

using Guard = std::lock_guard<std::recursive_mutex>;

}  // namespace

void* emulator_allocate(size_t bytes) {
  void* address = nullptr;
  return cudaMalloc(&address, bytes == 0 ? 1 : bytes) == cudaSuccess ? address : nullptr;
}

int emulator_release(void* address) { return cudaFree(address); }

int emulator_release_on(void* address, void* stream) {
  return cudaFreeAsync(address, stream_of(stream));
}

int emulator_copy_to_device(void* to, const void* from, size_t bytes) {
  return copy(to, from, bytes, cudaMemcpyHostToDevice);
}

int emulator_copy_from_device(void* to, const void* from, size_t bytes) {
  return copy(to, from, bytes, cudaMemcpyDeviceToHost);
}

void* emulator_new_stream() {
  cudaStream_t stream = nullptr;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  return stream;
}

int emulator_end_stream(void* stream) { return cudaStreamDestroy(stream_of(stream)); }

int emulator_synchronize(void* stream) { return cudaStreamSynchronize(stream_of(stream)); }

int emulator_synchronize_device() { return cudaDeviceSynchronize(); }

int emulator_wait_for_stream(void* stream, void* other) {
  cudaEvent_t event = nullptr;
  if (const cudaError_t error = cudaEventCreateWithFlags(&event, cudaEventDisableTiming)) {
    return error;
  }
  cudaError_t error = cudaEventRecord(event, stream_of(other));
  if (error == cudaSuccess) error = cudaStreamWaitEvent(stream_of(stream), event, 0);
  cudaEventDestroy(event);
  return error;
}

int emulator_begin_capture(void* stream) {
  return cudaStreamBeginCapture(stream_of(stream), cudaStreamCaptureModeGlobal);
}

void* emulator_end_capture(void* stream) {
  cudaGraph_t graph = nullptr;
  if (cudaStreamEndCapture(stream_of(stream), &graph) != cudaSuccess) return nullptr;
  cudaGraphExec_t exec = nullptr;
  cudaGraphInstantiate(&exec, graph, 0);
  cudaGraphDestroy(graph);
  return exec;
}

int emulator_launch_graph(void* graph, void* stream) {
  return cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), stream_of(stream));
}

int emulator_release_graph(void* graph) {
  return cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph));
}

int emulator_set_devices(int count) {
  const Guard guard(runtime().lock);
  if (count < 0) return cudaErrorInvalidValue;
  runtime().devices = count;
  return cudaSuccess;
}

int emulator_set_device(int device) { return cudaSetDevice(device); }

void emulator_set_seed(uint64_t seed) {
  const Guard guard(runtime().lock);
  runtime().set_seed(seed);
}

void emulator_fail_allocation_after(int64_t n) {
  const Guard guard(runtime().lock);
  runtime().memory.fail_after(n);
}

void emulator_set_quarantine(size_t bytes) {
  const Guard guard(runtime().lock);
  runtime().memory.set_quarantine(bytes);
}

size_t emulator_live_bytes() {
  cudaDeviceSynchronize();
  const Guard guard(runtime().lock);
  return runtime().memory.live_bytes();
}

int64_t emulator_launches() {
  const Guard guard(runtime().lock);
  return runtime().launches;
}

const char* emulator_last_error() {
  const Guard guard(runtime().lock);
  thread_local std::string text;
  const auto& sticky = runtime().sticky;
  text = sticky.code == cudaSuccess || !sticky.text.empty()
             ? sticky.text
             : fusedrnn::emulator::text_of(sticky.code);
  return text.c_str();
}

void emulator_reset_error() {
  const Guard guard(runtime().lock);
  runtime().sticky = {cudaSuccess, ""};
  cudaGetLastError();
}
