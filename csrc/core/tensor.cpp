#include "core/tensor.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <numeric>
#include <span>
#include <utility>

namespace fusedrnn {
namespace {

// In the order of Dtype.
constexpr DtypeInfo kDtypes[] = {
    {Dtype::float32, "float32", {kDLFloat, 32, 1}},
    {Dtype::float64, "float64", {kDLFloat, 64, 1}},
    {Dtype::bfloat16, "bfloat16", {kDLBfloat, 16, 1}},
    {Dtype::float16, "float16", {kDLFloat, 16, 1}},
    {Dtype::dual32, "complex64", {kDLComplex, 64, 1}},
    {Dtype::dual64, "complex128", {kDLComplex, 128, 1}},
};
static_assert(std::ranges::is_sorted(kDtypes, {}, &DtypeInfo::dtype) && std::size(kDtypes) == 6);

// Those that a user names; networks of dual numbers are made of networks of these.
constexpr auto kNamed = std::span(kDtypes).first<4>();

template <class Match>
const DtypeInfo* find(const Match& match) {
  const DtypeInfo* found = std::ranges::find_if(kDtypes, match);
  return found == std::end(kDtypes) ? nullptr : found;
}

bool is_of(DLDataType type, ElementKind kind) {
  const bool integer = type.code == kDLInt || type.code == kDLUInt;
  switch (kind) {
    case ElementKind::floating:
      return find_dtype(type) != nullptr;
    case ElementKind::integer:
      return integer && type.lanes == 1 && type.bits >= 8 && type.bits <= 64 &&
             std::has_single_bit(type.bits);
    case ElementKind::boolean:
      return (type.code == kDLBool || type.code == kDLUInt) && type.lanes == 1 && type.bits == 8;
    case ElementKind::any:
      break;
  }
  return type.bits != 0 && type.lanes != 0;
}

std::string place_name(DLDevice device) {
  return is_host(device) ? "the CPU" : device_name(device);
}

// Those of element i, which need not be aligned, with zeros above.
uint64_t bits_of(const DLTensor& t, int64_t i) {
  static_assert(std::endian::native == std::endian::little);
  uint64_t bits = 0;
  const int64_t item = item_size(t);
  std::memcpy(&bits, static_cast<const char*>(data_of(t)) + i * stride_of(t, 0) * item,
              static_cast<size_t>(item));
  return bits;
}

bool may_overlap(const Footprint& a, const Footprint& b) {
  if (a.begin == a.end || b.begin == b.end) return false;
  if (a.end <= b.begin || b.end <= a.begin) return false;
  const int64_t pitch = std::gcd(a.pitch, b.pitch);
  if (pitch == 0) return true;
  // Modulo the pitch every row of b starts at 0 and every row of a at `offset`.
  const int64_t offset = ((a.begin - b.begin) % pitch + pitch) % pitch;
  return offset < b.row_bytes || offset + a.row_bytes > pitch;
}

bool same_elements(const Footprint& a, const Footprint& b) {
  return a.first == b.first && a.begin == b.begin && a.end == b.end && a.pitch == b.pitch &&
         a.row_bytes == b.row_bytes;
}

[[noreturn]] void throw_overlap(const Footprint& output, const Footprint& other) {
  refuse_value(output.name, "memory apart from " + other.name.text(), "overlapping memory");
}

}  // namespace

// --- element types ---

const DtypeInfo& dtype_info(Dtype dtype) { return kDtypes[static_cast<int>(dtype)]; }

const DtypeInfo* find_dtype(DLDataType dlpack) {
  return find([&](const DtypeInfo& info) {
    return info.dlpack.code == dlpack.code && info.dlpack.bits == dlpack.bits && dlpack.lanes == 1;
  });
}

const DtypeInfo* find_dtype(const std::string& name) {
  const auto found = std::ranges::find(kNamed, name, &DtypeInfo::name);
  return found == kNamed.end() ? nullptr : &*found;
}

std::string dtype_names() {
  std::string names;
  for (const DtypeInfo& info : kNamed) {
    if (&info != &kNamed.front()) names += &info == &kNamed.back() ? " or " : ", ";
    names += info.name;
  }
  return names;
}

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

void throw_wrong_dtype(const Name& name, ElementKind kind, const std::string& got) {
  std::string wanted = "a dtype that DLPack knows";
  if (kind == ElementKind::floating) wanted = "dtype " + dtype_names();
  if (kind == ElementKind::integer) wanted = "an integer dtype";
  if (kind == ElementKind::boolean) wanted = "dtype bool or uint8";
  refuse_type(name, wanted, got);
}

void check_kind(const Name& name, const DLTensor& t, ElementKind kind) {
  if (!is_of(t.dtype, kind)) throw_wrong_dtype(name, kind, dtype_name(t.dtype));
}

Dtype floating_dtype(const Name& name, DLDataType dtype) {
  const DtypeInfo* info = find_dtype(dtype);
  if (info == nullptr) throw_wrong_dtype(name, ElementKind::floating, dtype_name(dtype));
  return info->dtype;
}

// --- devices ---

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

void check_on_cpu(const Name& name, DLDevice device) {
  if (is_host(device)) return;
  refuse_type(name, "an array on the CPU", "one on " + device_name(device));
}

void check_usable_device(const Name& name, DLDevice device) {
  if (is_host(device) || is_cuda(device)) return;
  refuse_type(name, "an array on the CPU or a CUDA device", "one on " + device_name(device));
}

void check_device(const Name& name, DLDevice device, DLDevice wanted, const char* whose) {
  if (same_place(device, wanted)) return;
  refuse_type(name, "an array on " + place_name(wanted) + " (the device of " + whose + ")",
              "one on " + place_name(device));
}

// --- shapes and strides ---

std::string shape_text(const DLTensor& t) { return shape_text(t.shape, t.ndim); }

std::string shape_text(const int64_t* shape, int rank) {
  std::string text = "(";
  for (int i = 0; i < rank; ++i) {
    if (i > 0) text += ", ";
    text += shape[i] == kAnyExtent ? "*" : std::to_string(shape[i]);
  }
  return text + (rank == 1 ? ",)" : ")");
}

int64_t element_count(const DLTensor& t) {
  int64_t count = 1;
  for (int i = 0; i < t.ndim; ++i) {
    if (t.shape[i] == 0) return 0;
    count *= t.shape[i];
  }
  return count;
}

int64_t stride_of(const DLTensor& t, int axis) {
  if (t.strides != nullptr && t.shape[axis] > 1) return t.strides[axis];
  int64_t stride = 1;
  for (int i = t.ndim - 1; i > axis; --i) stride *= std::max<int64_t>(t.shape[i], 1);
  return stride;
}

bool product_within(int64_t limit, std::span<const int64_t> factors) {
  for (const int64_t factor : factors) limit /= std::max<int64_t>(factor, 1);
  return limit >= 1;
}

// --- elements ---

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

// --- checks of one tensor ---

const DLTensor& required(const Name& name, const DLTensor* t) {
  if (t == nullptr) refuse_value(name, "an array", "none");
  return *t;
}

void check_header(const Name& name, const DLTensor& t) {
  if (t.ndim > kMaxRank) {
    refuse_value(name, "at most " + std::to_string(kMaxRank) + " dimensions", t.ndim);
  }
  if (t.ndim < 0 || (t.ndim > 0 && t.shape == nullptr)) {
    refuse_value(name, "a shape", std::to_string(t.ndim) + " dimensions without one");
  }
  for (int i = 0; i < t.ndim; ++i) {
    if (t.shape[i] >= 0) continue;
    refuse_value(name, "dimensions of at least 0", "shape " + shape_text(t));
  }
}

void check_rank(const Name& name, const DLTensor& t, int rank, const char* axes) {
  if (t.ndim == rank) return;
  refuse_value(name, "a " + std::to_string(rank) + "-dimensional array " + axes,
               "shape " + shape_text(t));
}

void check_shape(const Name& name, const DLTensor& t, const int64_t* shape, int rank) {
  const auto fits = [](int64_t wanted, int64_t found) {
    return wanted == kAnyExtent || wanted == found;
  };
  if (t.ndim == rank && std::equal(shape, shape + rank, t.shape, fits)) return;
  refuse_value(name, "shape " + shape_text(shape, rank), shape_text(t));
}

void check_bytes(const Name& name, const DLTensor& t) {
  if (product_within(kMaxBytes / item_size(t), {t.shape, static_cast<size_t>(t.ndim)})) return;
  throw_value_error(name.text() + ": shape " + shape_text(t) + " is too large");
}

void check_data(const Name& name, const DLTensor& t) {
  if (t.data != nullptr || element_count(t) == 0) return;
  refuse_value(name, "memory of shape " + shape_text(t), "a null pointer");
}

void check_strides(const Name& name, const DLTensor& t) {
  if (element_count(t) == 0) return;
  for (int i = 0; i < t.ndim; ++i) {
    const int64_t stride = stride_of(t, i);
    if (stride <= kMaxBytes && stride >= -kMaxBytes &&
        product_within(kMaxBytes, {std::abs(stride), t.shape[i], item_size(t)})) {
      continue;
    }
    refuse_value(name, "strides within memory",
                 std::to_string(stride) + " for axis " + std::to_string(i));
  }
}

void check_dense(const Name& name, const DLTensor& t) {
  if (element_count(t) == 0) return;
  if (t.ndim > 0 && stride_of(t, t.ndim - 1) != 1) {
    refuse_value(name, "a last axis of stride 1",
                 "stride " + std::to_string(stride_of(t, t.ndim - 1)));
  }
  if (reinterpret_cast<uintptr_t>(data_of(t)) % static_cast<uintptr_t>(item_size(t)) == 0) return;
  refuse_value(name, "memory aligned to " + std::to_string(item_size(t)) + " bytes",
               "a misaligned address");
}

void check_tensor(const Name& name, const DLTensor& t, const char* dtype, const Shape* shape) {
  check_header(name, t);
  check_kind(name, t, ElementKind::any);
  if (dtype != nullptr && dtype_name(t.dtype) != dtype) {
    refuse_type(name, std::string("dtype ") + dtype, dtype_name(t.dtype));
  }
  if (shape != nullptr) check_shape(name, t, *shape);
  check_bytes(name, t);
  check_data(name, t);
  check_strides(name, t);
}

// --- which memory a tensor covers ---

Footprint::Footprint(const Name& what, const void* memory, size_t bytes)
    : name(what),
      first(static_cast<int64_t>(reinterpret_cast<intptr_t>(memory))),
      begin(first),
      end(first + static_cast<int64_t>(bytes)),
      row_bytes(end - begin) {}

Footprint::Footprint(const Name& what, const DLTensor& t) : Footprint(what, data_of(t), 0) {
  if (element_count(t) == 0) return;
  int rank = t.ndim;
  row_bytes = item_size(t);
  if (rank > 0 && stride_of(t, rank - 1) == 1) row_bytes *= t.shape[--rank];
  end += row_bytes;
  struct Axis {
    int64_t extent, stride;  // in bytes
  } axes[2] = {{1, 0}, {1, 0}};
  for (int i = 0; i < rank && i < 2; ++i) axes[i] = {t.shape[i], stride_of(t, i) * item_size(t)};
  if (std::abs(axes[0].stride) > std::abs(axes[1].stride)) std::swap(axes[0], axes[1]);
  for (const Axis& axis : axes) {
    if (axis.extent < 2) continue;
    const int64_t reach = (axis.extent - 1) * axis.stride;
    // Strides that nest: each step is as long as everything below it.
    if (std::abs(axis.stride) < end - begin) overlaps_itself = true;
    (reach < 0 ? begin : end) += reach;
    pitch = std::gcd(pitch, axis.stride);
  }
}

void check_apart(std::span<const Footprint> outputs, std::span<const Footprint> inputs) {
  for (size_t i = 0; i < outputs.size(); ++i) {
    const Footprint& output = outputs[i];
    if (output.overlaps_itself) {
      refuse_value(output.name, "rows that do not overlap", "strides that make them overlap");
    }
    for (size_t j = 0; j < i; ++j) {
      if (may_overlap(output, outputs[j])) throw_overlap(output, outputs[j]);
    }
    for (const Footprint& input : inputs) {
      if (!may_overlap(output, input)) continue;
      const bool in_place = output.in_place >= 0 && output.in_place == input.in_place;
      if (!in_place || !same_elements(output, input)) throw_overlap(output, input);
    }
  }
}

}  // namespace fusedrnn
