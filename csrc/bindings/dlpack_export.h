// The producer's side of DLPack's Python protocol, for the arrays that NumPy cannot export.
#pragma once

#include <pybind11/numpy.h>

#include <utility>

namespace fusedrnn::bindings {

namespace py = pybind11;

// A NumPy array of any type that DLPack knows, bfloat16 among them, to be given to a library's
// from_dlpack. Each capsule keeps the array alive by itself.
class LentArray {
 public:
  explicit LentArray(py::array array) : array_(std::move(array)) {}

  // Arguments as the array API standard has them; the array lies on the CPU and is not copied.
  py::object dlpack(py::handle stream, py::handle max_version, py::handle device,
                    py::handle copy) const;
  py::tuple dlpack_device() const;

 private:
  py::array array_;
};

}  // namespace fusedrnn::bindings
