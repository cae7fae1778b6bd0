#include "bindings/dlpack_import.h"

#include <algorithm>
#include <string>
#include <utility>

#include "bindings/arguments.h"
#include "bindings/place.h"
#include "core/error.h"
#include "core/tensor.h"

namespace fusedrnn::bindings {
namespace {

constexpr const char* kLegacy = "dltensor";
constexpr const char* kVersioned = "dltensor_versioned";

// "" where nothing is known.
std::string advice(py::handle object) {
  return py::cast<std::string>(py::module_::import("fusedrnn._unreadable").attr("advice")(object));
}

py::tuple own_version() { return py::make_tuple(DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION); }

py::object call_dlpack(const Name& name, py::handle object) {
  try {
    const py::object method = object.attr("__dlpack__");
    try {
      return method(py::arg("max_version") = own_version());
    } catch (const py::error_already_set& error) {
      if (!error.matches(PyExc_TypeError)) throw;  // a TypeError: the method may know no versions
    }
    return method();
  } catch (py::error_already_set& error) {
    rethrow(error, name, "__dlpack__", object);
  }
}

ManagedTensor taken_out(const Name& name, py::handle lender, const py::object& capsule) {
  ManagedTensor lent(name, capsule);
  lent.check(name, lender);
  return lent;
}

}  // namespace

std::string unreadable(const Name& name, py::handle object, const std::string& why) {
  const std::string known = advice(object);
  return expected(name, "an array whose memory can be read",
                  type_name(object) + (known.empty() ? why : known));
}

void rethrow(py::error_already_set& error, const Name& name, const char* method,
             py::handle object) {
  if (error.matches(PyExc_MemoryError) || !error.matches(PyExc_Exception)) throw error;
  const std::string raised = py::cast<std::string>(error.type().attr("__name__")) + ": " +
                             py::cast<std::string>(py::str(error.value()));
  const std::string message =
      unreadable(name, object, std::string(" whose ") + method + " raised " + raised);
  py::raise_from(error, PyExc_TypeError, message.c_str());
  throw py::error_already_set();
}

py::object call(const Name& name, py::handle object, const char* method) {
  try {
    return object.attr(method)();
  } catch (py::error_already_set& error) {
    rethrow(error, name, method, object);
  }
}

ManagedTensor::ManagedTensor(const Name& name, const py::object& capsule) {
  PyObject* p = capsule.ptr();
  if (PyCapsule_IsValid(p, kVersioned)) {
    versioned_ = static_cast<DLManagedTensorVersioned*>(PyCapsule_GetPointer(p, kVersioned));
    PyCapsule_SetName(p, "used_dltensor_versioned");
  } else if (PyCapsule_IsValid(p, kLegacy)) {
    legacy_ = static_cast<DLManagedTensor*>(PyCapsule_GetPointer(p, kLegacy));
    PyCapsule_SetName(p, "used_dltensor");
  } else {
    std::string got = type_name(capsule);
    if (PyCapsule_CheckExact(p)) {
      const char* other = PyCapsule_GetName(p);
      got = "a capsule named " + std::string(other == nullptr ? "nothing" : other);
    }
    throw_type_error(expected(name, "a new DLPack capsule from __dlpack__", got));
  }
}

ManagedTensor::ManagedTensor(ManagedTensor&& other) noexcept
    : legacy_(std::exchange(other.legacy_, nullptr)),
      versioned_(std::exchange(other.versioned_, nullptr)) {}

ManagedTensor::~ManagedTensor() {
  if (legacy_ != nullptr && legacy_->deleter != nullptr) legacy_->deleter(legacy_);
  if (versioned_ != nullptr && versioned_->deleter != nullptr) versioned_->deleter(versioned_);
}

void ManagedTensor::check(const Name& name, py::handle lender) const {
  if (versioned_ != nullptr && versioned_->version.major != DLPACK_MAJOR_VERSION) {
    const DLPackVersion& version = versioned_->version;
    throw_type_error(
        expected(name, "a DLPack tensor of major version " + std::to_string(DLPACK_MAJOR_VERSION),
                 "version " + std::to_string(version.major) + "." + std::to_string(version.minor)));
  }
  const DLTensor& t = tensor();
  check_header(name, t);
  if (t.data == nullptr && std::count(t.shape, t.shape + t.ndim, 0) == 0) {
    throw_type_error(unreadable(name, lender, " with a null pointer"));
  }
}

const DLTensor& ManagedTensor::tensor() const {
  return legacy_ != nullptr ? legacy_->dl_tensor : versioned_->dl_tensor;
}

bool ManagedTensor::read_only() const {
  return legacy_ != nullptr || (versioned_->flags & DLPACK_FLAG_BITMASK_READ_ONLY) != 0;
}

DLDevice producer_device(const Name& name, py::handle object) {
  if (!py::hasattr(object, "__dlpack__")) {
    throw_type_error(expected(name, "an array (NumPy, or an object with __dlpack__)",
                              type_name(object) + advice(object)));
  }
  if (!py::hasattr(object, "__dlpack_device__")) return {kDLCPU, 0};
  try {
    const auto device = object.attr("__dlpack_device__")();
    const auto [type, id] = py::cast<std::pair<int32_t, int32_t>>(device);
    return {type, id};
  } catch (py::error_already_set& error) {
    rethrow(error, name, "__dlpack_device__", object);
  } catch (const py::cast_error&) {
    throw_type_error(unreadable(name, object, " whose __dlpack_device__ is no pair of ints"));
  }
}

ManagedTensor import_dlpack(const Name& name, py::handle object) {
  return taken_out(name, object, call_dlpack(name, object));
}

ManagedTensor import_dlpack_on_cuda(const Name& name, py::handle object, int64_t stream) {
  py::object capsule;
  try {
    capsule = cuda_kind_of(object).attr("lend")(object, stream, own_version());
  } catch (py::error_already_set& error) {
    rethrow(error, name, "__dlpack__", object);
  }
  return taken_out(name, object, capsule);
}

}  // namespace fusedrnn::bindings
