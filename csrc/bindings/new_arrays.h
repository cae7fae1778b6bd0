// Arrays on the CPU for results, of NumPy's or of libraries with DLPack's table.
#pragma once

#include <pybind11/numpy.h>

#include "bindings/dlpack.h"
#include "core/tensor.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn::bindings {

// An uninitialised NumPy array, 64-byte aligned. The bytes of `shape` fit in int64.
py::array empty_array(const py::dtype& dtype, const Shape& shape);

// Of `count` objects, which it takes.
py::tuple tuple_taking(py::object* objects, int count);

// Results of the kind of an array, made without a call of Python's.
class ResultsLike {
 public:
  explicit ResultsLike(PyObject* array);

  // Whether there are such.
  explicit operator bool() const { return table_ != nullptr || descr_; }

  // A new array; `data`: where its elements are to be written. Dense, or `swapped`, which NumPy's
  // are not here: with its first two axes the other way round in memory.
  py::object make(DLDataType dtype, const Shape& shape, void** data, bool swapped = false) const;
  // Whether they are of any type and may be swapped.
  bool has_table() const { return table_ != nullptr; }
  // Whether they are of the package's own type in the place of bfloat16, which its users do not
  // see.
  bool are_bits() const;

 private:
  const ExchangeTable* table_ = nullptr;
  py::object descr_;  // NumPy's
};

}  // namespace fusedrnn::bindings
