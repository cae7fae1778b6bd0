// info, threads, and where the CUDA library is.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>

#include "bindings/arguments.h"
#include "bindings/register.h"
#include "core/cuda_library.h"
#include "core/error.h"
#include "core/system.h"

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
}

}  // namespace fusedrnn::bindings
