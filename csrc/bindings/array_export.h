// Arrays that leave the module, and those it was given to write to.
#pragma once

#include <pybind11/numpy.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>

#include "bindings/array_view.h"
#include "core/problem.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn::bindings {

namespace py = pybind11;

// 64-byte aligned memory that lives as long as the capsule.
py::capsule allocate(size_t bytes);

// An uninitialised NumPy array over such memory. The bytes of `shape` fit in int64.
py::array empty_array(const py::dtype& dtype, std::initializer_list<int64_t> shape);
py::array empty_array(const py::dtype& dtype, std::span<const int64_t> shape);

// A result: a NumPy array that the caller gave, or a new one where `object` is None.
class OutputArray {
 public:
  OutputArray(const char* name, py::handle object, Dtype dtype,
              std::initializer_list<int64_t> shape);

  DLTensor* tensor() { return &view_.tensor; }
  const py::array& array() const { return array_; }

 private:
  ArrayView view_;
  py::array array_;
};

}  // namespace fusedrnn::bindings
