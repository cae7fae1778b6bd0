// What XLA hands to a handler: buffers as tensors, attributes by name, a CUDA device, and errors
// back.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bindings/xla_ffi_abi.h"
#include "core/cuda_library.h"
#include "core/error.h"
#include "core/tensor.h"

namespace fusedrnn::xla {

inline DLDataType dlpack_type(DataType type) {
  constexpr std::pair<DataType, DLDataType> kTypes[] = {
      {kPred, {kDLBool, 8, 1}},    {kS8, {kDLInt, 8, 1}},       {kS16, {kDLInt, 16, 1}},
      {kS32, {kDLInt, 32, 1}},     {kS64, {kDLInt, 64, 1}},     {kU8, {kDLUInt, 8, 1}},
      {kU16, {kDLUInt, 16, 1}},    {kU32, {kDLUInt, 32, 1}},    {kU64, {kDLUInt, 64, 1}},
      {kF16, {kDLFloat, 16, 1}},   {kF32, {kDLFloat, 32, 1}},   {kF64, {kDLFloat, 64, 1}},
      {kBF16, {kDLBfloat, 16, 1}}, {kC64, {kDLComplex, 64, 1}}, {kC128, {kDLComplex, 128, 1}},
  };
  for (const auto& [known, dlpack] : kTypes) {
    if (known == type) return dlpack;
  }
  throw_type_error("expected arrays of numbers, got XLA's type " +
                   std::to_string(static_cast<int>(type)));
}

class Attribute {
 public:
  Attribute(const Attributes& all, std::string_view name) : name_(name) {
    for (int64_t i = 0; i < all.size; ++i) {
      if (std::string_view(all.names[i]->data, all.names[i]->size) != name) continue;
      type_ = all.types[i];
      item_ = all.items[i];
      return;
    }
    throw_value_error("attribute " + name_ + ": expected one, got none");
  }

  std::string_view text() const {
    const auto* span = static_cast<const ByteSpan*>(expect(kString, "a string"));
    return {span->data, span->size};
  }
  double number() const {
    const auto* scalar = static_cast<const Scalar*>(expect(kScalar, "a float64"));
    if (scalar->dtype != kF64) refuse("a float64");
    double value = 0;
    std::memcpy(&value, scalar->value, sizeof value);
    return value;
  }
  std::span<const int64_t> integers() const {
    const auto* array = static_cast<const Array*>(expect(kArray, "int64 numbers"));
    if (array->dtype != kS64) refuse("int64 numbers");
    return {static_cast<const int64_t*>(array->data), array->size};
  }

  [[noreturn]] void refuse(const char* wanted) const {
    throw_value_error("attribute " + name_ + ": expected " + wanted + ", got another");
  }

 private:
  const void* expect(AttributeType type, const char* wanted) const {
    if (type_ != type) refuse(wanted);
    return item_;
  }

  std::string name_;
  AttributeType type_{};
  const void* item_ = nullptr;
};

// The buffers of one side of a call, taken in order: of a list of places, where the character of
// each says whether ('1') there is one.
class Places {
 public:
  Places(const char* side, const Buffers& buffers, const Attributes& attributes, DLDevice device)
      : side_(side), buffers_(buffers), attribute_(attributes, side), device_(device) {
    there_ = attribute_.text();
  }

  // The next place; null where there is nothing.
  DLTensor* next(DLTensor& tensor) {
    if (place_ == there_.size()) attribute_.refuse("a character for each array");
    if (there_[place_++] != '1') return nullptr;
    if (used_ == buffers_.size || buffers_.types[used_] != kBuffer) {
      throw_value_error(side_ + ": expected a buffer for each that is said to be there");
    }
    const Buffer& buffer = *static_cast<const Buffer*>(buffers_.items[used_++]);
    if (buffer.rank > kMaxRank) throw_value_error(side_ + ": expected arrays of fewer axes");
    tensor = {};
    tensor.data = buffer.data;
    tensor.device = device_;
    tensor.ndim = static_cast<int32_t>(buffer.rank);
    tensor.dtype = dlpack_type(buffer.dtype);
    tensor.shape = buffer.dims;
    return &tensor;
  }

  void finish() const {
    if (place_ != there_.size() || used_ != buffers_.size) {
      throw_value_error(side_ + ": expected as many arrays as the network takes, got others");
    }
  }

 private:
  std::string side_;
  const Buffers& buffers_;
  Attribute attribute_;
  DLDevice device_;
  std::string_view there_;
  size_t place_ = 0;
  int64_t used_ = 0;
};

// Where XLA runs a handler on a CUDA device: the device, the stream, and memory from XLA's
// allocator. For as long as the call.
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

inline Error* make_error(const Api& api, fusedrnn_status status, const char* message) {
  ErrorCode code = kInvalidArgument;
  if (status == FUSEDRNN_OUT_OF_MEMORY) code = kResourceExhausted;
  if (status == FUSEDRNN_UNAVAILABLE) code = kUnavailable;
  if (status == FUSEDRNN_INTERNAL) code = kInternal;
  ErrorCreateArgs args{sizeof args, nullptr, message, code};
  return api.error_create(&args);
}

}  // namespace fusedrnn::xla
