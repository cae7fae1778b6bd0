// as_array and empty: arrays for the Python layer.
#include <pybind11/numpy.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "bindings/arguments.h"
#include "bindings/array_export.h"
#include "bindings/array_import.h"
#include "bindings/dlpack_import.h"
#include "bindings/numpy_types.h"
#include "bindings/register.h"
#include "core/error.h"
#include "core/tensor.h"

namespace fusedrnn::bindings {
namespace {

// A tuple of ints, or of ints and None for any extent.
std::vector<int64_t> shape_argument(py::handle object, bool any_allowed) {
  if (!PyTuple_Check(object.ptr())) {
    throw_type_error(expected("shape", "a tuple", type_name(object)));
  }
  std::vector<int64_t> shape;
  for (const py::handle item : py::reinterpret_borrow<py::tuple>(object)) {
    if (item.is_none() && any_allowed) {
      shape.push_back(kAnyExtent);
      continue;
    }
    shape.push_back(int_argument("shape", item));
    if (shape.back() < 0) {
      throw_value_error(expected("shape", "extents of at least 0", std::to_string(shape.back())));
    }
  }
  return shape;
}

py::array as_array(py::handle name_object, py::handle object, py::handle shape_object,
                   py::handle dtype_object) {
  const std::string name = str_argument("name", name_object);
  std::optional<std::vector<int64_t>> shape;
  if (!shape_object.is_none()) shape = shape_argument(shape_object, true);
  std::optional<std::string> dtype;
  if (!dtype_object.is_none()) dtype = str_argument("dtype", dtype_object);

  const InputArray array(name.c_str(), object, ElementKind::any);
  check_tensor(name.c_str(), required(name.c_str(), array.tensor()),
               dtype ? dtype->c_str() : nullptr, shape ? shape->data() : nullptr,
               shape ? static_cast<int>(shape->size()) : -1);
  const py::handle type(reinterpret_cast<PyObject*>(py::detail::npy_api::get().PyArray_Type_));
  if (!py::isinstance<py::array>(object)) return array.as_numpy();
  if (py::type::handle_of(object).is(type)) return py::reinterpret_borrow<py::array>(object);
  return type.attr("view")(object, type);  // not the subclass's own view()
}

// NumPy arrays that a step will write to.
void check_outputs(const py::dict& arrays) {
  std::vector<Footprint> written;
  for (const auto& [name, object] : arrays) {
    const char* text = PyUnicode_AsUTF8(name.ptr());  // lives as long as the dict
    if (text == nullptr) throw py::error_already_set();
    OutputArray output(text, object, Dtype::float32, {});
    check_dense(text, *output.tensor());
    written.emplace_back(text, *output.tensor());
  }
  check_apart(written, {});
}

// Nothing is ordered: no element is read.
void check_on_cuda(py::handle name_object, py::handle object, py::handle shape_object,
                   py::handle dtype_object, int32_t device) {
  constexpr int64_t kNoOrder = -1;
  const std::string name = str_argument("name", name_object);
  const std::vector<int64_t> shape = shape_argument(shape_object, true);
  const std::string dtype = str_argument("dtype", dtype_object);
  const bool numpy = py::isinstance<py::array>(object);
  const DLDevice found = numpy ? DLDevice{kDLCPU, 0} : producer_device(name.c_str(), object);
  check_device(name.c_str(), found, {kDLCUDA, device}, "the layer");
  const py::object array = without_gradient(name.c_str(), object);
  const ManagedTensor lent = import_dlpack_on_cuda(name.c_str(), array, kNoOrder);
  check_tensor(name.c_str(), lent.tensor(), dtype.c_str(), shape.data(),
               static_cast<int>(shape.size()));
}

py::array empty(py::handle shape_object, py::handle dtype_object) {
  const std::vector<int64_t> shape = shape_argument(shape_object, false);
  const Dtype dtype = dtype_argument(dtype_object);
  DLTensor tensor{};
  tensor.device = {kDLCPU, 0};
  tensor.ndim = static_cast<int32_t>(std::min<size_t>(shape.size(), kMaxRank + 1));
  tensor.dtype = dtype_info(dtype).dlpack;
  tensor.shape = const_cast<int64_t*>(shape.data());
  check_header("shape", tensor);
  check_bytes("shape", tensor);
  return empty_array(numpy_dtype(dtype), shape);
}

}  // namespace

void register_arrays(py::module_& m) {
  m.def("as_array", &as_array, py::arg("name"), py::arg("obj"), py::arg("shape") = py::none(),
        py::arg("dtype") = py::none(),
        "obj as a NumPy array, without a copy; read-only where its owner lends it so. Of a tensor "
        "that PyTorch negates as it is read, a copy.");
  m.def("check_on_cuda", &check_on_cuda, py::arg("name"), py::arg("obj"), py::arg("shape"),
        py::arg("dtype"), py::arg("device"),
        "Throws where obj is no such array on that CUDA device, the device of a layer.");
  m.def("check_outputs", &check_outputs, py::arg("arrays"),
        "Throws where arrays, by name, cannot be written to or share memory with one another.");
  m.def("empty", &empty, py::arg("shape"), py::arg("dtype"),
        "An uninitialised array, 64-byte aligned; of bfloat16 one of a single field of its bits.");
}

}  // namespace fusedrnn::bindings
