// DLTensors: the names of their types, devices and shapes for messages, how they are read, and what
// can be checked of one by itself; core/validate.h puts the checks together for a call. Functions
// that read memory expect a tensor that has been checked.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <limits>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/problem.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn {

// Far below the range of int64, so that engines may add padding and sum a few sizes or offsets.
constexpr int64_t kMaxBytes = std::numeric_limits<int64_t>::max() / 64;

constexpr int kMaxRank = 8;  // nothing here has more axes; so every tensor's fit in a small array
constexpr int64_t kAnyExtent = INT64_MIN;  // in a shape that is expected

// --- element types ---

struct DtypeInfo {
  Dtype dtype;
  const char* name;
  DLDataType dlpack;
};

const DtypeInfo& dtype_info(Dtype dtype);
inline const char* dtype_name(Dtype dtype) { return dtype_info(dtype).name; }
inline int64_t item_size(Dtype dtype) { return dtype_info(dtype).dlpack.bits / 8; }
inline bool is_dual(Dtype dtype) { return dtype == Dtype::dual32 || dtype == Dtype::dual64; }

// Null where it is no type of a call. By its name not of dual numbers, of which no message speaks.
const DtypeInfo* find_dtype(DLDataType dlpack);
const DtypeInfo* find_dtype(const std::string& name);

std::string dtype_names();                 // "float32, float64, bfloat16 or float16"
std::string dtype_name(DLDataType dtype);  // "float32", "int64", "bool", ...

// What an argument's elements are; the wording of a wrong type is the same wherever it is noticed.
enum class ElementKind { floating, integer, boolean, any };
[[noreturn]] void throw_wrong_dtype(const Name& name, ElementKind kind, const std::string& got);
void check_kind(const Name& name, const DLTensor& t, ElementKind kind);
Dtype floating_dtype(const Name& name, DLDataType dtype);

// --- devices ---

std::string device_name(DLDevice device);  // "cpu", "cuda:0", ...

// Memory that the CPU reads and writes like any other.
inline bool is_host(DLDevice device) {
  const int32_t type = device.device_type;
  return type == kDLCPU || type == kDLCUDAHost || type == kDLROCMHost;
}
// Memory that kernels on a CUDA device reach; that of managed arrays too.
inline bool is_cuda(DLDevice device) {
  return device.device_type == kDLCUDA || device.device_type == kDLCUDAManaged;
}
inline bool same_place(DLDevice a, DLDevice b) {
  if (is_cuda(a) && is_cuda(b)) return a.device_id == b.device_id;
  return is_host(a) && is_host(b);
}

void check_on_cpu(const Name& name, DLDevice device);
// Of the array that decides where a call runs.
void check_usable_device(const Name& name, DLDevice device);
// Of the others: where `whose` lies.
void check_device(const Name& name, DLDevice device, DLDevice wanted, const char* whose);

// --- shapes and strides ---

class Shape {
 public:
  Shape(std::initializer_list<int64_t> extents) {
    for (const int64_t extent : extents) add(extent);
  }
  void add(int64_t extent) { extents_[rank_++] = extent; }
  int rank() const { return rank_; }
  const int64_t* begin() const { return extents_; }
  const int64_t* end() const { return extents_ + rank_; }
  int64_t count() const {  // of elements
    return std::accumulate(begin(), end(), int64_t{1}, std::multiplies<>());
  }

 private:
  int64_t extents_[kMaxRank];
  int rank_ = 0;
};

std::string shape_text(const DLTensor& t);               // "(3, 4)", "(3,)", "()"
std::string shape_text(const int64_t* shape, int rank);  // of what is expected: * for any extent

inline int64_t item_size(const DLTensor& t) { return (t.dtype.bits * t.dtype.lanes + 7) / 8; }
inline void* data_of(const DLTensor& t) { return static_cast<char*>(t.data) + t.byte_offset; }
int64_t element_count(const DLTensor& t);

// In elements. Along an axis of fewer than two elements producers may write anything; what a dense
// tensor would have is returned there, so that nobody multiplies with rubbish.
int64_t stride_of(const DLTensor& t, int axis);

// True where the product of the factors, zeros counted as ones, is at most `limit`.
bool product_within(int64_t limit, std::span<const int64_t> factors);
inline bool product_within(int64_t limit, std::initializer_list<int64_t> factors) {
  return product_within(limit, std::span(factors.begin(), factors.size()));
}

// --- elements ---

// Element i of a vector of any integer type. Values above the range of int64 come as its maximum;
// integer_text() writes them as they are.
int64_t read_integer(const DLTensor& t, int64_t i);
std::string integer_text(const DLTensor& t, int64_t i);

// --- checks of one tensor ---

const DLTensor& required(const Name& name, const DLTensor* t);

// What must hold before anything else of a tensor may be looked at: a shape.
void check_header(const Name& name, const DLTensor& t);

void check_rank(const Name& name, const DLTensor& t, int rank, const char* axes);
void check_shape(const Name& name, const DLTensor& t, const int64_t* shape, int rank);
inline void check_shape(const Name& name, const DLTensor& t, const Shape& shape) {
  check_shape(name, t, shape.begin(), shape.rank());
}

void check_bytes(const Name& name, const DLTensor& t);  // they fit in kMaxBytes

// These three expect that they do.
void check_data(const Name& name, const DLTensor& t);     // not null where there are elements
void check_strides(const Name& name, const DLTensor& t);  // no offset overflows
void check_dense(const Name& name, const DLTensor& t);    // dense last axis, aligned

// All that can be said of a tensor without a call, but for where it lies: of a size that memory can
// hold, `dtype` and `shape` as expected (null: any).
void check_tensor(const Name& name, const DLTensor& t, const char* dtype, const Shape* shape);

// --- which memory a tensor covers ---

// Rows of `row_bytes` bytes; their starts differ by multiples of `pitch`.
struct Footprint {
  Name name;
  int64_t first;      // address of the first element
  int64_t begin;      // of the lowest byte
  int64_t end;        // behind the highest; equal to begin where there is no memory
  int64_t pitch = 0;  // greatest common divisor of the strides in bytes, 0 for a single row
  int64_t row_bytes;
  bool overlaps_itself = false;
  int in_place =
      -1;  // what is written where the input of that number was read, element for element

  // Rows are the last axis where it is dense, else single elements; there are at most two other
  // axes, of any stride.
  Footprint(const Name& name, const DLTensor& t);
  Footprint(const Name& name, const void* memory, size_t bytes);
};

// Throws where an output overlaps itself, another output or an input; where an output's number
// in_place is that of an input, the two may be the same elements. Memory is apart where ranges are,
// or where rows interleave (as the two halves of [T,B,2*H] do); rarer ways to interleave count as
// overlap.
void check_apart(std::span<const Footprint> outputs, std::span<const Footprint> inputs);

}  // namespace fusedrnn
