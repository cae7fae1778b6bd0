#include "core/tensor_checks.h"

#include <algorithm>
#include <cstdlib>

#include "core/device.h"
#include "core/dtype.h"
#include "core/error.h"
#include "core/tensor.h"

namespace fusedrnn {
namespace {

std::string place_name(DLDevice device) {
  return is_host(device) ? "the CPU" : device_name(device);
}

}  // namespace

const DLTensor& required(const Name& name, const DLTensor* t) {
  if (t == nullptr) throw_value_error(name.text() + ": expected an array, got none");
  return *t;
}

void check_on_cpu(const Name& name, DLDevice device) {
  if (is_host(device)) return;
  throw_type_error(expected(name, "an array on the CPU", "one on " + device_name(device)));
}

void check_usable_device(const Name& name, DLDevice device) {
  if (is_host(device) || is_cuda(device)) return;
  throw_type_error(
      expected(name, "an array on the CPU or a CUDA device", "one on " + device_name(device)));
}

void check_device(const Name& name, DLDevice device, DLDevice wanted, const char* whose) {
  if (same_place(device, wanted)) return;
  throw_type_error(expected(name,
                            "an array on " + place_name(wanted) + " (the device of " + whose + ")",
                            "one on " + place_name(device)));
}

void check_header(const Name& name, const DLTensor& t) {
  if (t.ndim > kMaxRank) {
    throw_value_error(expected(name, "at most " + std::to_string(kMaxRank) + " dimensions",
                               std::to_string(t.ndim)));
  }
  if (t.ndim < 0 || (t.ndim > 0 && t.shape == nullptr)) {
    throw_value_error(
        expected(name, "a shape", std::to_string(t.ndim) + " dimensions without one"));
  }
  for (int i = 0; i < t.ndim; ++i) {
    if (t.shape[i] >= 0) continue;
    throw_value_error(expected(name, "dimensions of at least 0", "shape " + shape_text(t)));
  }
}

bool has_type(const DLTensor& t, int code, std::initializer_list<int> widths) {
  if (t.dtype.code != code || t.dtype.lanes != 1) return false;
  for (const int bits : widths) {
    if (t.dtype.bits == bits) return true;
  }
  return false;
}

Dtype floating_dtype(const Name& name, const DLTensor& t) {
  const DtypeInfo* info = find_dtype(t.dtype);
  if (info == nullptr) throw_wrong_dtype(name, ElementKind::floating, dtype_name(t.dtype));
  return info->dtype;
}

void check_rank(const Name& name, const DLTensor& t, int rank, const char* axes) {
  if (t.ndim == rank) return;
  throw_value_error(expected(name, "a " + std::to_string(rank) + "-dimensional array " + axes,
                             "shape " + shape_text(t)));
}

void check_shape(const Name& name, const DLTensor& t, Shape shape) {
  if (t.ndim == shape.rank() && std::equal(shape.begin(), shape.end(), t.shape)) return;
  throw_value_error(
      expected(name, "shape " + shape_text(shape.begin(), shape.rank()), shape_text(t)));
}

void check_bytes(const Name& name, const DLTensor& t) {
  int64_t limit = kMaxBytes / item_size(t);
  for (int i = 0; i < t.ndim; ++i) limit /= t.shape[i] > 0 ? t.shape[i] : 1;
  if (limit >= 1) return;
  throw_value_error(name.text() + ": shape " + shape_text(t) + " is too large");
}

void check_data(const Name& name, const DLTensor& t) {
  if (t.data != nullptr || element_count(t) == 0) return;
  throw_value_error(expected(name, "memory of shape " + shape_text(t), "a null pointer"));
}

void check_strides(const Name& name, const DLTensor& t) {
  if (element_count(t) == 0) return;
  for (int i = 0; i < t.ndim; ++i) {
    const int64_t stride = stride_of(t, i);
    if (stride > kMaxBytes || stride < -kMaxBytes ||
        !product_within(kMaxBytes, {std::abs(stride), t.shape[i], item_size(t)})) {
      throw_value_error(expected(name, "strides within memory",
                                 std::to_string(stride) + " for axis " + std::to_string(i)));
    }
  }
}

void check_dense(const Name& name, const DLTensor& t) {
  if (element_count(t) == 0) return;
  if (t.ndim > 0 && stride_of(t, t.ndim - 1) != 1) {
    throw_value_error(expected(name, "a last axis of stride 1",
                               "stride " + std::to_string(stride_of(t, t.ndim - 1))));
  }
  if (reinterpret_cast<uintptr_t>(data_of(t)) % static_cast<uintptr_t>(item_size(t)) != 0) {
    throw_value_error(expected(name, "memory aligned to " + std::to_string(item_size(t)) + " bytes",
                               "a misaligned address"));
  }
}

void throw_wrong_dtype(const Name& name, ElementKind kind, const std::string& got) {
  std::string wanted = "a dtype that DLPack knows";
  if (kind == ElementKind::floating) wanted = "dtype " + dtype_names();
  if (kind == ElementKind::integer) wanted = "an integer dtype";
  if (kind == ElementKind::boolean) wanted = "dtype bool";
  throw_type_error(expected(name, wanted, got));
}

void check_tensor(const Name& name, const DLTensor& t, const char* dtype, const int64_t* shape,
                  int rank) {
  check_header(name, t);
  if (t.dtype.bits == 0 || t.dtype.lanes == 0) {
    throw_wrong_dtype(name, ElementKind::any, dtype_name(t.dtype));
  }
  if (dtype != nullptr && dtype_name(t.dtype) != dtype) {
    throw_type_error(expected(name, std::string("dtype ") + dtype, dtype_name(t.dtype)));
  }
  if (rank >= 0) {
    bool same = t.ndim == rank;
    for (int i = 0; same && i < rank; ++i) same = shape[i] == kAnyExtent || t.shape[i] == shape[i];
    if (!same) {
      throw_value_error(expected(name, "shape " + shape_text(shape, rank), shape_text(t)));
    }
  }
  check_bytes(name, t);
  check_data(name, t);
  check_strides(name, t);
}

}  // namespace fusedrnn
