// The compiled module: its parts, and what it knows of the machine.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdlib>
#include <exception>
#include <string>
#include <vector>

#include "bindings/arguments.h"
#include "bindings/gil.h"
#include "bindings/register.h"
#include "core/cuda_library.h"
#include "core/error.h"
#include "core/memory.h"
#include "cpu/isa/detect.h"
#include "cpu/threads/pool.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn::bindings {
namespace {

std::vector<std::string> isa_names(const std::vector<cpu::Isa>& isas) {
  std::vector<std::string> names;
  for (const cpu::Isa isa : isas) names.emplace_back(cpu::isa_name(isa));
  return names;
}

py::dict info() {
  std::string cuda;
  const std::vector<std::string> devices = cuda_devices(cuda);
  return py::dict(
      py::arg("version") = fusedrnn_version(), py::arg("isa") = cpu::isa_name(cpu::selected_isa()),
      py::arg("isas_available") = isa_names(cpu::available_isas()),
      py::arg("isas_compiled") = isa_names(cpu::compiled_isas()),
      py::arg("threads") = cpu::get_num_threads(),
      py::arg("cpus_available") = cpu::available_cpus(), py::arg("cuda_devices") = devices,
      py::arg("cuda") = cuda, py::arg("cuda_plain_products") = cuda_plain_products());
}

void set_threads(py::handle object) {
  cpu::set_num_threads(narrowed("n", "a number of threads", int_argument("n", object)));
}

size_t free_kept() {
  const ReleasedGil released;
  return release_memory();
}

void require_device(const char* name, int32_t device) {
  require_cuda_device(name, {kDLCUDA, device});
}

}  // namespace
}  // namespace fusedrnn::bindings

PYBIND11_MODULE(_core, m) {
  using namespace fusedrnn::bindings;
  m.doc() = "The compiled part of fusedrnn: arrays in and out. Its types are those of _core.pyi.";
  m.attr("__version__") = fusedrnn_version();
  try {
    // FUSEDRNN_ISA must be honoured or refused, and refused before anything has been computed.
    fusedrnn::cpu::selected_isa();
  } catch (const std::exception& error) {
    throw py::import_error(error.what());
  }
  watch_for_the_end_of_python();
  register_errors();
  register_tape(m);
  register_network(m);
  register_frozen(m);
  register_optimizers(m);
  register_nn(m);
  register_arrays(m);
  register_plain_calls(m);
  register_xla_handlers(m);
  m.def("info", &info, "Version, instruction sets, threads and devices.");
  m.def("set_num_threads", &set_threads, py::arg("n"),
        "Set the largest number of threads that a call may use, the calling one included.\n\n"
        "Parameters\n----------\nn : int\n    From 1 to 1024. Smaller calls use fewer; results are "
        "the same bits for any number.\n\n"
        "Raises\n------\nValueError, TypeError\n    For another number, or what is none.");
  m.def("get_num_threads", &fusedrnn::cpu::get_num_threads,
        "Return the largest number of threads that a call may use, the calling one included.\n\n"
        "At first that of FUSEDRNN_NUM_THREADS or OMP_NUM_THREADS, else of the CPUs that the "
        "process may use.");
  m.def("release_memory", &free_kept,
        "Gives kept memory back to the system; returns how many bytes.");
  m.def(
      "environment_variable", [](const char* name) { return std::getenv(name); },
      py::arg("name").none(false), "Its value as it is now, or None.");
  m.def("set_cuda_library", &fusedrnn::set_cuda_library, py::arg("path"),
        "Where the CUDA library is, unless the environment says otherwise.");
  m.def("require_cuda_device", &require_device, py::arg("name").none(false), py::arg("device"),
        "Throws where the CUDA device cannot be used.");
}
