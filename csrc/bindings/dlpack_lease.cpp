#include "bindings/dlpack_lease.h"

#include <memory>
#include <utility>

#include "bindings/array_view.h"
#include "bindings/held_gil.h"

namespace fusedrnn::bindings {
namespace {

// What a consumer holds until it calls the deleter.
template <class Managed>
struct Lease {
  Managed managed{};
  ArrayView view;  // shape and strides
  py::object owner;
};

// With the GIL held.
template <class Managed>
void delete_lease(Managed* managed) {
  delete static_cast<Lease<Managed>*>(managed->manager_ctx);
}

// Of a consumer, on whatever thread. What outlives Python is not freed: it ends with the process.
template <class Managed>
void end_lease(Managed* managed) {
  const HeldGil gil;
  if (gil) delete_lease(managed);
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
py::object lend_as(const DLTensor& tensor, py::object owner, bool read_only) {
  auto lease = std::make_unique<Lease<Managed>>();
  lease->owner = std::move(owner);
  lease->view.set("array", tensor);
  lease->managed.dl_tensor = lease->view.tensor;
  lease->managed.manager_ctx = lease.get();
  lease->managed.deleter = end_lease<Managed>;
  set_version(lease->managed, read_only);
  auto capsule = py::reinterpret_steal<py::object>(
      PyCapsule_New(&lease->managed, kName<Managed>, [](PyObject* unused) {
        // Under another name the tensor belongs to the consumer that took it.
        if (PyCapsule_IsValid(unused, kName<Managed>) == 0) return;
        delete_lease(static_cast<Managed*>(PyCapsule_GetPointer(unused, kName<Managed>)));
      }));
  if (!capsule) throw py::error_already_set();
  lease.release();
  return capsule;
}

}  // namespace

py::object lend(const DLTensor& tensor, py::object owner, bool read_only, py::handle max_version) {
  const bool versioned =
      !max_version.is_none() && py::cast<py::tuple>(max_version)[0].cast<int64_t>() >= 1;
  return versioned ? lend_as<DLManagedTensorVersioned>(tensor, std::move(owner), read_only)
                   : lend_as<DLManagedTensor>(tensor, std::move(owner), read_only);
}

}  // namespace fusedrnn::bindings
