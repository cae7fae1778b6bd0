// Arrays that leave the module, and those it was given to write to.
#pragma once

#include <pybind11/numpy.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>

#include "bindings/array_import.h"
#include "bindings/array_view.h"
#include "bindings/dlpack_import.h"
#include "bindings/place.h"
#include "core/problem.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn::bindings {

namespace py = pybind11;

// 64-byte aligned memory that lives as long as the capsule.
py::capsule allocate(size_t bytes);

// An uninitialised NumPy array over such memory. The bytes of `shape` fit in int64.
py::array empty_array(const py::dtype& dtype, std::initializer_list<int64_t> shape);
py::array empty_array(const py::dtype& dtype, std::span<const int64_t> shape);

// A result: an array that the caller gave, of any library that lends it to be written to, or where
// `object` is None a new one; of NumPy on the CPU, on a CUDA device of x's library.
class OutputArray {
 public:
  OutputArray(const Name& name, py::handle object, Dtype dtype, const Shape& shape,
              const Place* place = nullptr);

  DLTensor* tensor() { return &view_.tensor; }
  const py::object& array() const { return array_; }

 private:
  void set_on_device(const Name& name);

  ArrayView view_;
  py::object array_;
  std::optional<ManagedTensor> lent_;  // on a CUDA device: the array's memory
  std::optional<InputArray> given_;    // on the CPU: an array of another library than NumPy
};

}  // namespace fusedrnn::bindings
