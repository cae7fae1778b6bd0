// What XLA hands to a handler: buffers as tensors, attributes by name, and errors back.
#pragma once

#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "bindings/xla_ffi_abi.h"
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

inline Error* make_error(const Api& api, fusedrnn_status status, const char* message) {
  ErrorCode code = kInvalidArgument;
  if (status == FUSEDRNN_OUT_OF_MEMORY) code = kResourceExhausted;
  if (status == FUSEDRNN_UNAVAILABLE) code = kUnavailable;
  if (status == FUSEDRNN_INTERNAL) code = kInternal;
  ErrorCreateArgs args{sizeof args, nullptr, message, code};
  return api.error_create(&args);
}

}  // namespace fusedrnn::xla
