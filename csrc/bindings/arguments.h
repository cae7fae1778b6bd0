// Python arguments that are no arrays. Nothing is converted that is not what was asked for: a
// string is no bool and True no number.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <ranges>
#include <string>

#include "core/error.h"
#include "core/problem.h"

namespace fusedrnn::bindings {

namespace py = pybind11;

bool bool_argument(const Name& name, py::handle object);
std::string str_argument(const Name& name, py::handle object);

// Anything with __index__ but bool; `where` ends the message, as in " at index 3".
int64_t int_argument(const Name& name, py::handle object, const std::string& where = "");

// In 32 bits, or refused with what was expected.
inline int32_t narrowed(const Name& name, const char* wanted, int64_t value) {
  if (value != static_cast<int32_t>(value)) refuse_value(name, wanted, value);
  return static_cast<int32_t>(value);
}

// From the name of a type that arrays of a call may have.
Dtype dtype_argument(py::handle object);

// float32 with 10 bits of fraction, which operands of products on CUDA devices may have.
constexpr const char* kTfloat32 = "tfloat32";

// A fusedrnn_compute, from None or the name of a type, for arrays of `dtype`.
int32_t compute_argument(py::handle object, Dtype dtype, bool on_cuda);

// What that was: null where it is the type of the arrays.
const char* compute_name(Compute compute);

// Whether a compute_dtype asks for dual numbers, of the type that it stands beside.
bool means_dual(py::handle compute_dtype);

inline constexpr auto as_it_is = [](const auto& value) { return value; };

// What `of` says of each.
template <class Range, class Of>
py::tuple tuple_of(const Range& range, const Of& of) {
  py::tuple items(static_cast<size_t>(std::ranges::distance(range)));
  size_t i = 0;
  for (const auto& item : range) items[i++] = of(item);
  return items;
}

// Whether it is of a type of a module, which may have to be imported.
bool is_instance(py::handle object, const char* module, const char* type);

// "list", "Tensor", ...: the name of an object's type, for messages.
std::string type_name(py::handle object);

}  // namespace fusedrnn::bindings
