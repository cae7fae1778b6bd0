#include "core/tensor.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace fusedrnn {
namespace {

template <class T>
T load(const void* p) {
  T value;
  std::memcpy(&value, p, sizeof value);  // lengths need not be aligned
  return value;
}

const char* integer_address(const DLTensor& t, int64_t i) {
  return static_cast<const char*>(data_of(t)) + i * stride_of(t, 0) * item_size(t);
}

}  // namespace

std::string dtype_name(DLDataType dtype) {
  std::string name;
  switch (dtype.code) {
    case kDLInt:
      name = "int";
      break;
    case kDLUInt:
      name = "uint";
      break;
    case kDLFloat:
      name = "float";
      break;
    case kDLBfloat:
      name = "bfloat";
      break;
    case kDLComplex:
      name = "complex";
      break;
    case kDLBool:
      name = "bool";
      break;
    default:
      name = "DLPack type code " + std::to_string(dtype.code) + " of bits ";
  }
  if (dtype.code != kDLBool || dtype.bits != 8) name += std::to_string(dtype.bits);
  if (dtype.lanes != 1) name += " with " + std::to_string(dtype.lanes) + " lanes";
  return name;
}

std::string device_name(DLDevice device) {
  const char* name = nullptr;
  switch (device.device_type) {
    case kDLCPU:
      return "cpu";
    case kDLCUDA:
      name = "cuda";
      break;
    case kDLCUDAHost:
      name = "cuda_host";
      break;
    case kDLOpenCL:
      name = "opencl";
      break;
    case kDLVulkan:
      name = "vulkan";
      break;
    case kDLMetal:
      name = "metal";
      break;
    case kDLROCM:
      name = "rocm";
      break;
    case kDLROCMHost:
      name = "rocm_host";
      break;
    case kDLCUDAManaged:
      name = "cuda_managed";
      break;
    case kDLOneAPI:
      name = "oneapi";
      break;
    default:
      break;
  }
  const std::string id = ":" + std::to_string(device.device_id);
  if (name == nullptr) return "DLPack device type " + std::to_string(device.device_type) + id;
  return name + id;
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
  const char* p = integer_address(t, i);
  if (t.dtype.code == kDLInt) {
    switch (t.dtype.bits) {
      case 8:
        return load<int8_t>(p);
      case 16:
        return load<int16_t>(p);
      case 32:
        return load<int32_t>(p);
      default:
        return load<int64_t>(p);
    }
  }
  switch (t.dtype.bits) {
    case 8:
      return load<uint8_t>(p);
    case 16:
      return load<uint16_t>(p);
    case 32:
      return load<uint32_t>(p);
    default: {
      constexpr uint64_t kMax = std::numeric_limits<int64_t>::max();
      return static_cast<int64_t>(std::min(load<uint64_t>(p), kMax));
    }
  }
}

std::string integer_text(const DLTensor& t, int64_t i) {
  if (t.dtype.code == kDLUInt && t.dtype.bits == 64) {
    return std::to_string(load<uint64_t>(integer_address(t, i)));
  }
  return std::to_string(read_integer(t, i));
}

}  // namespace fusedrnn
