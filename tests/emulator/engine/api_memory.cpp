// The runtime's calls about memory.
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>

#include "engine/capture.h"
#include "engine/runtime.h"
#include "engine/stream.h"

using namespace fusedrnn::emulator;  // NOLINT: this file defines functions outside of it

namespace {

std::map<const void*, size_t>& pinned_memory() {
  static auto* const memory = new std::map<const void*, size_t>;
  return *memory;
}

bool on_device(Runtime& r, const void* address) { return r.memory.holding(address) != nullptr; }

void check_kind(Runtime& r, const void* to, const void* from, cudaMemcpyKind kind) {
  if (kind == cudaMemcpyDefault) return;
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  require(on_device(r, to) == to_device && on_device(r, from) == from_device, cudaErrorInvalidValue,
          "a copy whose addresses are not where its kind says");
}

struct Copy {
  void* to;
  size_t to_pitch;
  const void* from;
  size_t from_pitch, width, height;
};

size_t extent(size_t pitch, size_t width, size_t height) { return pitch * (height - 1) + width; }

void run_copy(const Copy& copy) {
  Runtime& r = runtime();
  if (copy.width == 0 || copy.height == 0) return;
  r.memory.check_range(copy.to, extent(copy.to_pitch, copy.width, copy.height), "a copy's target");
  r.memory.check_range(copy.from, extent(copy.from_pitch, copy.width, copy.height),
                       "a copy's source");
  for (size_t row = 0; row < copy.height; ++row) {
    std::memmove(static_cast<char*>(copy.to) + row * copy.to_pitch,
                 static_cast<const char*>(copy.from) + row * copy.from_pitch, copy.width);
  }
}

void run_memset(void* address, int value, size_t bytes) {
  runtime().memory.check_range(address, bytes, "a memset");
  std::memset(address, value, bytes);
}

// A node that makes the memory appear, which is the graph's while it runs.
void* allocate_in_graph(Runtime& r, CUstream_st& stream, size_t bytes) {
  Allocation& allocation = r.memory.allocate(bytes, stream.device);
  allocation.state = Allocation::State::graphs;
  stream.capture->graph->content->memory.push_back(allocation.data);
  add_node(stream, [&r, address = allocation.data] {
    Allocation& own = r.memory.at(address);
    require(!own.held, cudaErrorInvalidValue,
            "a graph allocates memory that its last launch has not released");
    own.held = true;
    poison(own.data, own.bytes);
  });
  return allocation.data;
}

void release_in_graph(Runtime& r, CUstream_st& stream, void* address) {
  if (r.memory.at(address).state != Allocation::State::graphs) {
    invalidate(*stream.capture, cudaErrorInvalidValue,
               "cudaFreeAsync in a capture, of memory allocated outside of it");
  }
  add_node(stream, [&r, address] {
    Allocation& own = r.memory.at(address);
    require(own.held, cudaErrorInvalidValue, "a graph releases memory twice");
    own.held = false;
    poison(own.data, own.bytes);
  });
}

}  // namespace

cudaError_t cudaMalloc(void** address, size_t bytes) {
  return call([&](Runtime& r) {
    refuse_unsafe_call("cudaMalloc");
    *address = bytes == 0 ? nullptr : r.memory.allocate(bytes, current_device()).data;
  });
}

cudaError_t cudaFree(void* address) {
  return call([&](Runtime& r) {
    refuse_unsafe_call("cudaFree");
    if (address == nullptr) return;
    Allocation& allocation = r.memory.at(address);
    require(allocation.state == Allocation::State::live, cudaErrorInvalidValue,
            "cudaFree of a graph's memory");
    synchronize_device(allocation.device);
    r.drive([&] { r.memory.release(address); });
  });
}

cudaError_t cudaMallocAsync(void** address, size_t bytes, cudaStream_t handle) {
  return call([&](Runtime& r) {
    CUstream_st& stream = stream_of(handle);
    require(bytes > 0, cudaErrorInvalidValue, "cudaMallocAsync of 0 bytes");
    if (stream.capture != nullptr) {
      *address = allocate_in_graph(r, stream, bytes);
      return;
    }
    Allocation& allocation = r.memory.allocate(bytes, stream.device);
    *address = allocation.data;
    // What is written before the stream comes to this point is lost, as it may be on a device.
    enqueue(stream, [data = allocation.data, bytes] { poison(data, bytes); });
  });
}

cudaError_t cudaFreeAsync(void* address, cudaStream_t handle) {
  return call([&](Runtime& r) {
    CUstream_st& stream = stream_of(handle);
    require(address != nullptr, cudaErrorInvalidValue, "cudaFreeAsync of null");
    if (stream.capture != nullptr) {
      release_in_graph(r, stream, address);
      return;
    }
    Allocation& allocation = r.memory.at(address);
    require(allocation.state == Allocation::State::live, cudaErrorInvalidValue,
            "cudaFreeAsync of a graph's memory");
    refuse_implicit_order(stream);
    allocation.state = Allocation::State::ending;
    enqueue(stream, [&r, address] { r.memory.release(address); });
  });
}

cudaError_t cudaMallocHost(void** address, size_t bytes) {
  return call([&](Runtime&) {
    refuse_unsafe_call("cudaMallocHost");
    *address = std::malloc(bytes == 0 ? 1 : bytes);
    require(*address != nullptr, cudaErrorMemoryAllocation, "");
    poison(*address, bytes);
    pinned_memory()[*address] = bytes;
  });
}

cudaError_t cudaFreeHost(void* address) {
  return call([&](Runtime&) {
    refuse_unsafe_call("cudaFreeHost");
    if (address == nullptr) return;
    const auto found = pinned_memory().find(address);
    require(found != pinned_memory().end(), cudaErrorInvalidValue,
            "cudaFreeHost of an address that is not allocated");
    poison(address, found->second);
    pinned_memory().erase(found);
    std::free(address);
  });
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return call([&](Runtime& r) {
    CUstream_st& stream = stream_of(nullptr);
    refuse_in_capture(stream, "cudaMemcpy");
    check_kind(r, to, from, kind);
    enqueue(stream, [=] { run_copy({to, bytes, from, bytes, bytes, 1}); });
    synchronize(stream);
  });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return cudaMemcpy2DAsync(to, bytes, from, bytes, bytes, 1, kind, stream);
}

cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch,
                              size_t width, size_t height, cudaMemcpyKind kind,
                              cudaStream_t stream) {
  return call([&](Runtime& r) {
    require(to_pitch >= width && from_pitch >= width, cudaErrorInvalidPitchValue, "");
    if (width != 0 && height != 0) check_kind(r, to, from, kind);
    submit(stream_of(stream), [=] { run_copy({to, to_pitch, from, from_pitch, width, height}); });
  });
}

cudaError_t cudaMemset(void* address, int value, size_t bytes) {
  return cudaMemsetAsync(address, value, bytes, nullptr);
}

cudaError_t cudaMemsetAsync(void* address, int value, size_t bytes, cudaStream_t stream) {
  return call([&](Runtime& r) {
    require(bytes == 0 || on_device(r, address), cudaErrorInvalidValue,
            "a memset of an address that is not allocated");
    submit(stream_of(stream), [=] { run_memset(address, value, bytes); });
  });
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* address) {
  return call([&](Runtime& r) {
    *attributes = {cudaMemoryTypeUnregistered, -2, nullptr, const_cast<void*>(address)};
    if (const Allocation* const allocation = r.memory.holding(address)) {
      *attributes = {cudaMemoryTypeDevice, allocation->device, const_cast<void*>(address), nullptr};
    } else if (pinned_memory().count(address) != 0) {
      attributes->type = cudaMemoryTypeHost;
      attributes->device = current_device();
    }
  });
}

// Pools hold on to nothing: their settings change nothing that can be seen.
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
  return call([&](Runtime& r) {
    require(device >= 0 && device < r.devices, cudaErrorInvalidDevice, "");
    *pool = reinterpret_cast<cudaMemPool_t>(static_cast<uintptr_t>(device) + 1);
  });
}

namespace {

uint64_t& release_threshold(cudaMemPool_t pool) {
  static auto* const thresholds = new std::map<cudaMemPool_t, uint64_t>;
  return (*thresholds)[pool];
}

}  // namespace

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value) {
  return call([&](Runtime&) {
    require(attribute == cudaMemPoolAttrReleaseThreshold, cudaErrorInvalidValue,
            "an attribute that the emulator does not know");
    std::memcpy(&release_threshold(pool), value, sizeof(uint64_t));
  });
}

cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value) {
  return call([&](Runtime&) {
    require(attribute == cudaMemPoolAttrReleaseThreshold, cudaErrorInvalidValue,
            "an attribute that the emulator does not know");
    std::memcpy(value, &release_threshold(pool), sizeof(uint64_t));
  });
}

cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, size_t) {
  return call([](Runtime&) {});
}

// The handle says the device in its low byte, as that of a default pool does.
cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* properties) {
  static std::atomic<uintptr_t> made{0};
  return call([&](Runtime& r) {
    refuse_unsafe_call("cudaMemPoolCreate");
    const int device = properties->location.id;
    require(properties->allocType == cudaMemAllocationTypePinned &&
                properties->location.type == cudaMemLocationTypeDevice,
            cudaErrorInvalidValue, "a pool of anything but a device's memory");
    require(device >= 0 && device < r.devices, cudaErrorInvalidDevice, "");
    *pool = reinterpret_cast<cudaMemPool_t>(++made * 256 + static_cast<uintptr_t>(device) + 1);
  });
}

cudaError_t cudaMallocFromPoolAsync(void** address, size_t bytes, cudaMemPool_t pool,
                                    cudaStream_t stream) {
  const cudaError_t status = call([&](Runtime&) {
    const int device = static_cast<int>(reinterpret_cast<uintptr_t>(pool) % 256) - 1;
    require(device == stream_of(stream).device, cudaErrorInvalidValue,
            "memory for a stream from a pool of another device");
  });
  return status != cudaSuccess ? status : cudaMallocAsync(address, bytes, stream);
}
