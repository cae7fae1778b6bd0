// Results on a CUDA device for libraries that offer no memory of their own: JAX, and all that are
// known through DLPack alone.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <utility>
#include <vector>

#include "core/problem.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn::bindings {

namespace py = pybind11;

// Memory of the device's own pool, given back in the order of its stream.
class DeviceBlock;

// Dense, row-major and uninitialised; work on it is ordered on the stream it was made for. Its user
// sees what from_dlpack of x's library makes of it.
class DeviceArray {
 public:
  DeviceArray(py::handle shape, py::handle dtype, py::handle device, py::handle stream);

  // Arguments as the array API standard has them: the consumer's stream is made to wait.
  static py::object dlpack(py::handle self, py::handle stream, py::handle max_version,
                           py::handle device, py::handle copy);
  py::tuple dlpack_device() const;

  // What must live as long as anybody holds the array: the inputs of the call that writes it, whose
  // library does not know of that work.
  void keep(py::object inputs) { inputs_ = std::move(inputs); }

 private:
  std::shared_ptr<DeviceBlock> block_;
  std::vector<int64_t> shape_;
  Dtype dtype_;
  py::object inputs_ = py::none();
};

}  // namespace fusedrnn::bindings
