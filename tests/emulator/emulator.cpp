#include "emulator.h"

#include <cuda_runtime.h>

#include <cstring>
#include <vector>

#include "engine/capture.h"
#include "engine/runtime.h"
#include "engine/stream.h"

using fusedrnn::emulator::call;
using fusedrnn::emulator::Runtime;
using fusedrnn::emulator::runtime;

namespace {

cudaStream_t stream_of(void* stream) { return static_cast<cudaStream_t>(stream); }

int copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  if (bytes == 0) return cudaSuccess;
  if (const cudaError_t error = cudaDeviceSynchronize()) return error;
  return cudaMemcpy(to, from, bytes, kind);
}

// Packs `from` behind `to`, and returns the end.
char* pack(char* to, const char* from, const std::vector<int64_t>& shape,
           const std::vector<int64_t>& strides, size_t axis, size_t item) {
  if (axis == shape.size()) {
    std::memcpy(to, from, item);
    return to + item;
  }
  for (int64_t i = 0; i < shape[axis]; ++i) {
    to = pack(to, from + i * strides[axis], shape, strides, axis + 1, item);
  }
  return to;
}

using Guard = std::lock_guard<std::recursive_mutex>;

// Another current device for a while.
class OnDevice {
 public:
  explicit OnDevice(int device) : before_(fusedrnn::emulator::current_device()) {
    fusedrnn::emulator::require(device >= 0 && device < runtime().devices, cudaErrorInvalidDevice,
                                "");
    fusedrnn::emulator::set_current_device(device);
  }
  ~OnDevice() { fusedrnn::emulator::set_current_device(before_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int before_;
};

}  // namespace

void* emulator_allocate(size_t bytes) {
  void* address = nullptr;
  return cudaMalloc(&address, bytes == 0 ? 1 : bytes) == cudaSuccess ? address : nullptr;
}

int emulator_release(void* address) { return cudaFree(address); }

void* emulator_allocate_on(size_t bytes, int device, void* stream) {
  void* address = nullptr;
  call([&](Runtime& r) {
    const OnDevice on(device);
    CUstream_st& own = fusedrnn::emulator::stream_of(stream_of(stream));
    auto& allocation = r.memory.allocate(bytes == 0 ? 1 : bytes, device);
    address = allocation.data;
    if (own.capture == nullptr) return;
    ++allocation.holders;
    own.capture->graph->content->memory.push_back(address);
  });
  return address;
}

int emulator_release_on(void* address, int device, void* stream) {
  {
    const Guard guard(runtime().lock);
    if (runtime().sticky.code != cudaSuccess) {  // nothing runs that could use it
      runtime().memory.release(address);
      return cudaSuccess;
    }
  }
  return call([&](Runtime& r) {
    const OnDevice on(device);
    CUstream_st& own = fusedrnn::emulator::stream_of(stream_of(stream));
    auto& allocation = r.memory.at(address);
    if (own.capture != nullptr && allocation.holders == 1) {
      own.capture->graph->content->memory.push_back(address);
    } else if (own.capture != nullptr) {
      --allocation.holders;
      const size_t bytes = allocation.bytes;
      fusedrnn::emulator::add_node(own, [=] { fusedrnn::emulator::poison(address, bytes); });
    } else if (allocation.holders > 1) {
      --allocation.holders;
    } else {
      allocation.state = fusedrnn::emulator::Allocation::State::ending;
      fusedrnn::emulator::enqueue(own, [&r, address] { r.memory.release(address); });
    }
  });
}

int emulator_copy_to_device(void* to, const void* from, size_t bytes) {
  return copy(to, from, bytes, cudaMemcpyHostToDevice);
}

int emulator_copy_from_device(void* to, const void* from, size_t bytes) {
  return copy(to, from, bytes, cudaMemcpyDeviceToHost);
}

int emulator_copy_strided(void* to, const void* from, int ndim, const int64_t* shape,
                          const int64_t* strides, size_t item, void* stream) {
  return call([&](Runtime&) {
    const std::vector<int64_t> extents(shape, shape + ndim), steps(strides, strides + ndim);
    fusedrnn::emulator::submit(fusedrnn::emulator::stream_of(stream_of(stream)), [=] {
      pack(static_cast<char*>(to), static_cast<const char*>(from), extents, steps, 0, item);
    });
  });
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

int emulator_call_on(void* stream, void (*function)(void*), void* data) {
  return cudaLaunchHostFunc(stream_of(stream), function, data);
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

void emulator_set_driver(int version) {
  const Guard guard(runtime().lock);
  runtime().driver = version;
}

void emulator_set_capability(int capability) {
  const Guard guard(runtime().lock);
  runtime().capability = capability;
}

int emulator_set_devices(int count) {
  const Guard guard(runtime().lock);
  if (count < 0) return cudaErrorInvalidValue;
  runtime().devices = count;
  return cudaSuccess;
}

int emulator_set_device(int device) { return cudaSetDevice(device); }

int emulator_get_device() { return fusedrnn::emulator::current_device(); }

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

int64_t emulator_blocks(const char* kernel) {
  const Guard guard(runtime().lock);
  return runtime().blocks[kernel];
}

const char* emulator_error_text(int error) {
  return cudaGetErrorString(static_cast<cudaError_t>(error));
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
  runtime().memory.repair();
  cudaGetLastError();
}
