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

// Memory of the CUDA library's own pool, given back in the order of its stream.
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

  void keep(py::object inputs) { inputs_ = std::move(inputs); }

 private:
  std::shared_ptr<DeviceBlock> block_;
  std::vector<int64_t> shape_;
  Dtype dtype_;
  py::object inputs_ = py::none();
};

// Of a call whose arrays belong to such a library, which does not know of the work that reads the
// inputs: where `result` is a DeviceArray they live as long as anybody holds it.
void keep_inputs(const py::object& result, const py::tuple& inputs);

}  // namespace fusedrnn::bindings
