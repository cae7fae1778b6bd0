// Where XLA runs a handler on a CUDA device: the device, the stream, and memory from XLA's
// allocator.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "bindings/xla_ffi_abi.h"
#include "core/cuda_library.h"
#include "core/error.h"
#include "core/tensor.h"

namespace fusedrnn::xla {

// For as long as the call.
class CudaDevice {
 public:
  explicit CudaDevice(const CallFrame& frame) : api_(*frame.api), context_(frame.context) {
    if (api_.struct_size < sizeof(Api)) {
      throw fusedrnn::Error(FUSEDRNN_UNAVAILABLE,
                            "XLA's foreign function interface: expected one that tells the device "
                            "of a call, got an older one");
    }
    StreamArgs stream{sizeof stream, nullptr, context_, nullptr};
    check(api_.stream_get(&stream));
    stream_ = stream.stream;
    OrdinalArgs ordinal{sizeof ordinal, nullptr, context_, 0};
    check(api_.ordinal_get(&ordinal));
    device_ = {kDLCUDA, ordinal.ordinal};
  }
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;

  DLDevice device() const { return device_; }
  void* stream() const { return stream_; }
  const fusedrnn_allocator* allocator() const { return &allocator_; }

  // Numbers that the host must know: waits for the stream.
  void read(const void* memory, size_t bytes, void* to) const {
    const CudaPlugin& plugin = cuda_plugin();
    const CudaPlace place{device_.device_id, stream_, nullptr};
    check_cuda(plugin, plugin.read(memory, bytes, to, &place));
  }

 private:
  // The most that XLA may be asked for, and what an allocator promises.
  static constexpr size_t kAsked = 16, kPromised = 256;

  struct Memory {
    void *given, *used;
    size_t bytes;
  };

  void check(Error* error) const {
    if (error == nullptr) return;
    ErrorMessageArgs message{sizeof message, nullptr, error, nullptr};
    api_.error_get_message(&message);
    const std::string text = message.message == nullptr ? "an error" : message.message;
    destroy(error);
    throw fusedrnn::Error(FUSEDRNN_INTERNAL, "XLA: " + text);
  }
  void destroy(Error* error) const {
    ErrorDestroyArgs args{sizeof args, nullptr, error};
    api_.error_destroy(&args);
  }

  static void* allocate(void* context, size_t bytes, void*) {
    auto& self = *static_cast<CudaDevice*>(context);
    if (bytes > SIZE_MAX - kPromised) return nullptr;
    AllocateArgs args{sizeof args, nullptr, self.context_, bytes + kPromised, kAsked, nullptr};
    if (Error* error = self.api_.allocate(&args)) {
      self.destroy(error);
      return nullptr;
    }
    const auto address = reinterpret_cast<uintptr_t>(args.data);
    const uintptr_t used = (address + kPromised - 1) / kPromised * kPromised;
    auto* memory = static_cast<char*>(args.data) + (used - address);
    self.memories_.push_back({args.data, memory, args.size});
    return memory;
  }
  static void release(void* context, void* memory, size_t, void*) {
    auto& self = *static_cast<CudaDevice*>(context);
    const auto found = std::ranges::find(self.memories_, memory, &Memory::used);
    if (found == self.memories_.end()) return;
    FreeArgs args{sizeof args, nullptr, self.context_, found->bytes, found->given};
    self.memories_.erase(found);
    if (Error* error = self.api_.free(&args)) self.destroy(error);
  }

  const Api& api_;
  void* const context_;
  void* stream_ = nullptr;
  DLDevice device_{};
  fusedrnn_allocator allocator_{this, &CudaDevice::allocate, &CudaDevice::release};
  std::vector<Memory> memories_;
};

}  // namespace fusedrnn::xla
