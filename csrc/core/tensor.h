// Reading DLTensors: names for messages, strides, single elements. Nothing here checks an argument;
// functions that read memory expect a tensor that core/validate.h has accepted.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>

#include "core/dtype.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn {

std::string dtype_name(DLDataType dtype);                // "float32", "int64", "bool", ...
std::string device_name(DLDevice device);                // "cpu", "cuda:0", ...
std::string shape_text(const DLTensor& t);               // "(3, 4)", "(3,)", "()"
std::string shape_text(const int64_t* shape, int rank);  // of what is expected: * for any extent
constexpr int64_t kAnyExtent = INT64_MIN;

inline int64_t item_size(const DLTensor& t) { return (t.dtype.bits * t.dtype.lanes + 7) / 8; }

inline void* data_of(const DLTensor& t) { return static_cast<char*>(t.data) + t.byte_offset; }

// In elements. Along an axis of fewer than two elements producers may write anything; what a dense
// tensor would have is returned there, so that nobody multiplies with rubbish.
int64_t stride_of(const DLTensor& t, int axis);

int64_t element_count(const DLTensor& t);

// True where the product of the factors, zeros counted as ones, is at most `limit`.
bool product_within(int64_t limit, std::initializer_list<int64_t> factors);

// Element i of a vector of any integer type. Values above the range of int64 come as its maximum;
// integer_text() writes them as they are.
int64_t read_integer(const DLTensor& t, int64_t i);
std::string integer_text(const DLTensor& t, int64_t i);

}  // namespace fusedrnn
