#include "core/tensor.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <utility>

namespace fusedrnn {
namespace {

// Those of element i, which need not be aligned, with zeros above.
uint64_t bits_of(const DLTensor& t, int64_t i) {
  static_assert(std::endian::native == std::endian::little);
  uint64_t bits = 0;
  const int64_t item = item_size(t);
  std::memcpy(&bits, static_cast<const char*>(data_of(t)) + i * stride_of(t, 0) * item,
              static_cast<size_t>(item));
  return bits;
}

}  // namespace

std::string dtype_name(DLDataType dtype) {
  constexpr std::pair<int, const char*> kNames[] = {
      {kDLInt, "int"},       {kDLUInt, "uint"},       {kDLFloat, "float"},
      {kDLBfloat, "bfloat"}, {kDLComplex, "complex"}, {kDLBool, "bool"},
  };
  std::string name = "DLPack type code " + std::to_string(dtype.code) + " of bits ";
  for (const auto& [code, known] : kNames) {
    if (code == dtype.code) name = known;
  }
  if (dtype.code != kDLBool || dtype.bits != 8) name += std::to_string(dtype.bits);
  if (dtype.lanes != 1) name += " with " + std::to_string(dtype.lanes) + " lanes";
  return name;
}

std::string device_name(DLDevice device) {
  constexpr std::pair<int, const char*> kNames[] = {
      {kDLCUDA, "cuda"},          {kDLCUDAHost, "cuda_host"},
      {kDLOpenCL, "opencl"},      {kDLVulkan, "vulkan"},
      {kDLMetal, "metal"},        {kDLROCM, "rocm"},
      {kDLROCMHost, "rocm_host"}, {kDLCUDAManaged, "cuda_managed"},
      {kDLOneAPI, "oneapi"},
  };
  if (device.device_type == kDLCPU) return "cpu";
  std::string name = "DLPack device type " + std::to_string(device.device_type);
  for (const auto& [type, known] : kNames) {
    if (type == device.device_type) name = known;
  }
  return name + ":" + std::to_string(device.device_id);
}

std::string shape_text(const DLTensor& t) { return shape_text(t.shape, t.ndim); }

std::string shape_text(const int64_t* shape, int rank) {
  std::string text = "(";
  for (int i = 0; i < rank; ++i) {
    if (i > 0) text += ", ";
    text += shape[i] == kAnyExtent ? "*" : std::to_string(shape[i]);
  }
  return text + (rank == 1 ? ",)" : ")");
}

int64_t stride_of(const DLTensor& t, int axis) {
  if (t.strides != nullptr && t.shape[axis] > 1) return t.strides[axis];
  int64_t stride = 1;
  for (int i = t.ndim - 1; i > axis; --i) stride *= std::max<int64_t>(t.shape[i], 1);
  return stride;
}

int64_t element_count(const DLTensor& t) {
  int64_t count = 1;
  for (int i = 0; i < t.ndim; ++i) {
    if (t.shape[i] == 0) return 0;
    count *= t.shape[i];
  }
  return count;
}

bool product_within(int64_t limit, std::initializer_list<int64_t> factors) {
  for (const int64_t factor : factors) limit /= std::max<int64_t>(factor, 1);
  return limit >= 1;
}

int64_t read_integer(const DLTensor& t, int64_t i) {
  const uint64_t bits = bits_of(t, i);
  if (t.dtype.code == kDLInt) {
    const int above = 64 - t.dtype.bits;
    return static_cast<int64_t>(bits << above) >> above;
  }
  return static_cast<int64_t>(std::min<uint64_t>(bits, std::numeric_limits<int64_t>::max()));
}

std::string integer_text(const DLTensor& t, int64_t i) {
  if (t.dtype.code == kDLUInt) return std::to_string(bits_of(t, i));
  return std::to_string(read_integer(t, i));
}

}  // namespace fusedrnn
