// info, threads, and the engine's vector functions.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <string>

#include "bindings/arguments.h"
#include "bindings/array_export.h"
#include "bindings/array_import.h"
#include "bindings/numpy_types.h"
#include "bindings/register.h"
#include "bindings/released_gil.h"
#include "core/cuda_devices.h"
#include "core/cuda_library.h"
#include "core/error.h"
#include "core/system.h"
#include "core/tensor.h"

namespace fusedrnn::bindings {
namespace {

py::dict info() {
  const SystemInfo system = system_info();
  py::dict result;
  result["version"] = system.version;
  result["isa"] = system.isa;
  result["isas_available"] = system.isas_available;
  result["isas_compiled"] = system.isas_compiled;
  result["threads"] = system.threads;
  result["cpus_available"] = system.cpus_available;
  result["cuda_devices"] = system.cuda_devices;
  result["cuda"] = system.cuda;
  return result;
}

void set_threads(py::handle object) {
  const int64_t n = int_argument("n", object);
  if (n != static_cast<int32_t>(n)) {
    throw_value_error(expected("n", "a number of threads", std::to_string(n)));
  }
  set_num_threads(static_cast<int>(n));
}

py::array activation(py::handle name_object, py::handle object) {
  const std::string name = str_argument("name", name_object);
  const ActivationFunction function = find_activation(name);
  if (function == nullptr) {
    throw_value_error(expected("name", "exp, sigmoid or tanh", "'" + name + "'"));
  }
  InputArray in("array", object, ElementKind::floating);
  const DLTensor& t = required("array", in.tensor());
  check_tensor("array", t, nullptr, nullptr, -1);
  const Dtype dtype = floating_dtype("array", t);
  if (item_size(dtype) < 4) {  // the gate maths of 16-bit types is that of float32
    throw_type_error(expected("array", "dtype float32 or float64", dtype_name(dtype)));
  }
  check_rank("array", t, 1, "[n]");
  in.make_readable();
  const int64_t n = t.shape[0];
  py::array out = empty_array(numpy_dtype(dtype), {n});
  void* target = out.mutable_data();
  {
    const ReleasedGil no_gil;
    function(dtype, data_of(t), target, n);
  }
  return out;
}

}  // namespace

void register_system(py::module_& m) {
  m.def("info", &info, "Version, instruction sets, threads and devices.");
  m.def("set_num_threads", &set_threads, py::arg("n"),
        "Sets the largest number of threads a call may use, the calling one included.");
  m.def("get_num_threads", &get_num_threads, "That number.");
  m.def(
      "set_cuda_library", [](py::handle path) { set_cuda_library(str_argument("path", path)); },
      py::arg("path"), "Where the CUDA library is, unless the environment says otherwise.");
  m.def(
      "require_cuda_device",
      [](py::handle name, int32_t device) {
        require_cuda_device(str_argument("name", name).c_str(), {kDLCUDA, device});
      },
      py::arg("name"), py::arg("device"), "Throws where the CUDA device cannot be used.");
  m.def("activation", &activation, py::arg("name"), py::arg("array"),
        "The engine's own exp, sigmoid or tanh of a vector, in the instruction set in use.");
}

}  // namespace fusedrnn::bindings
