#include "bindings/dlpack_export.h"

#include <cstdint>

#include "bindings/array_view.h"
#include "bindings/dlpack_lease.h"
#include "bindings/register.h"
#include "core/tensor.h"

namespace fusedrnn::bindings {
py::object LentArray::dlpack(py::handle stream, py::handle max_version, py::handle device,
                             py::handle copy) const {
  if (!stream.is_none()) throw py::buffer_error("stream: expected None for an array on the CPU");
  if (!device.is_none() && !device.equal(dlpack_device())) {
    throw py::buffer_error("dl_device: expected the CPU, where the array lies");
  }
  if (copy.ptr() == Py_True) throw py::buffer_error("copy: expected None or False");
  ArrayView view;
  view.set("array", array_, ElementKind::any);
  return lend(view.tensor, array_, !array_.writeable(), max_version);
}

py::tuple LentArray::dlpack_device() const { return py::make_tuple(int32_t{kDLCPU}, 0); }

void register_dlpack_export(py::module_& m) {
  py::class_<LentArray>(m, "LentArray", py::is_final(),
                        "A NumPy array as a DLPack producer, of types that NumPy does not export.")
      .def(py::init<py::array>(), py::arg("array"))
      .def("__dlpack__", &LentArray::dlpack, py::kw_only(), py::arg("stream") = py::none(),
           py::arg("max_version") = py::none(), py::arg("dl_device") = py::none(),
           py::arg("copy") = py::none())
      .def("__dlpack_device__", &LentArray::dlpack_device);
}

}  // namespace fusedrnn::bindings
