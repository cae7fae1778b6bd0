#include "bindings/dlpack_export.h"

#include <cstdint>
#include <memory>
#include <utility>

#include "bindings/arguments.h"
#include "bindings/array_view.h"
#include "bindings/register.h"
#include "core/tensor_checks.h"

namespace fusedrnn::bindings {
namespace {

// What a consumer holds until it calls the deleter.
template <class Managed>
struct Lease {
  Managed managed{};
  ArrayView view;  // shape and strides
  py::array array;
};

template <class Managed>
void end_lease(Managed* managed) {
  if (Py_IsInitialized() == 0) return;  // a consumer that outlives Python: nothing is left to free
  const py::gil_scoped_acquire gil;
  delete static_cast<Lease<Managed>*>(managed->manager_ctx);
}

void set_version(DLManagedTensor&, bool) {}
void set_version(DLManagedTensorVersioned& managed, bool read_only) {
  managed.version = {DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION};
  managed.flags = read_only ? DLPACK_FLAG_BITMASK_READ_ONLY : 0;
}

template <class Managed>
constexpr const char* kName = "dltensor";
template <>
constexpr const char* kName<DLManagedTensorVersioned> = "dltensor_versioned";

template <class Managed>
py::object lend(const py::array& array) {
  auto lease = std::make_unique<Lease<Managed>>();
  lease->array = array;
  lease->view.set("array", array, ElementKind::any);
  lease->managed.dl_tensor = lease->view.tensor;
  lease->managed.manager_ctx = lease.get();
  lease->managed.deleter = end_lease<Managed>;
  set_version(lease->managed, !array.writeable());
  auto capsule = py::reinterpret_steal<py::object>(
      PyCapsule_New(&lease->managed, kName<Managed>, [](PyObject* unused) {
        // Under another name the tensor belongs to the consumer that took it.
        if (PyCapsule_IsValid(unused, kName<Managed>) == 0) return;
        end_lease(static_cast<Managed*>(PyCapsule_GetPointer(unused, kName<Managed>)));
      }));
  if (!capsule) throw py::error_already_set();
  lease.release();
  return capsule;
}

}  // namespace

py::object LentArray::dlpack(py::handle stream, py::handle max_version, py::handle device,
                             py::handle copy) const {
  if (!stream.is_none()) throw py::buffer_error("stream: expected None for an array on the CPU");
  if (!device.is_none() && !device.equal(dlpack_device())) {
    throw py::buffer_error("dl_device: expected the CPU, where the array lies");
  }
  if (copy.ptr() == Py_True) throw py::buffer_error("copy: expected None or False");
  // Consumers that do not say what they know are older than versions.
  const bool versioned =
      !max_version.is_none() && py::cast<py::tuple>(max_version)[0].cast<int64_t>() >= 1;
  return versioned ? lend<DLManagedTensorVersioned>(array_) : lend<DLManagedTensor>(array_);
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
