#include "bindings/dlpack.h"

#include <cstring>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include "bindings/arguments.h"
#include "bindings/gil.h"
#include "bindings/place.h"
#include "core/tensor.h"

namespace fusedrnn::bindings {
namespace {

template <class Managed>
constexpr bool kVersioned = std::is_same_v<Managed, DLManagedTensorVersioned>;
template <class Managed>
constexpr const char* kNew = kVersioned<Managed> ? "dltensor_versioned" : "dltensor";
template <class Managed>
constexpr const char* kUsed = kVersioned<Managed> ? "used_dltensor_versioned" : "used_dltensor";

// "" where nothing is known.
std::string advice(py::handle object) {
  return py::cast<std::string>(py::module_::import("fusedrnn._unreadable").attr("advice")(object));
}

// "x: expected an array whose memory can be read, got Class", and why not.
std::string unreadable(const Name& name, py::handle object, const std::string& why) {
  const std::string known = advice(object);
  return expected(name, "an array whose memory can be read",
                  type_name(object) + (known.empty() ? why : known));
}

// --- import ---

py::object call_dlpack(const Name& name, py::handle object, DLDevice device, int64_t stream) {
  const py::tuple version = py::make_tuple(DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION);
  try {
    if (!is_host(device)) return cuda_kind_of(object).attr("lend")(object, stream, version);
    const py::object method = object.attr("__dlpack__");
    try {
      return method(py::arg("max_version") = version);
    } catch (const py::error_already_set& error) {
      if (!error.matches(PyExc_TypeError)) throw;  // a TypeError: the method may know no versions
    }
    return method();
  } catch (py::error_already_set& error) {
    rethrow(error, name, "__dlpack__", object);
  }
}

template <class Managed>
LentTensor take_as(const Name& name, PyObject* capsule) {
  auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule, kNew<Managed>));
  py::capsule owner = owner_of(managed);
  PyCapsule_SetName(capsule, kUsed<Managed>);
  bool read_only = true;  // the legacy protocol does not say: what it lends is not written to
  if constexpr (kVersioned<Managed>) {
    const DLPackVersion& version = managed->version;
    if (version.major != DLPACK_MAJOR_VERSION) {  // of which only the deleter's place is known
      refuse_type(name, "a DLPack tensor of major version " + std::to_string(DLPACK_MAJOR_VERSION),
                  "version " + std::to_string(version.major) + "." + std::to_string(version.minor));
    }
    read_only = (managed->flags & DLPACK_FLAG_BITMASK_READ_ONLY) != 0;
  }
  return {managed->dl_tensor, read_only, std::move(owner)};
}

// Out of a capsule, which is renamed as the protocol asks.
LentTensor take(const Name& name, const py::object& capsule) {
  PyObject* p = capsule.ptr();
  if (PyCapsule_IsValid(p, kNew<DLManagedTensorVersioned>) != 0) {
    return take_as<DLManagedTensorVersioned>(name, p);
  }
  if (PyCapsule_IsValid(p, kNew<DLManagedTensor>) != 0) return take_as<DLManagedTensor>(name, p);
  std::string got = type_name(capsule);
  if (PyCapsule_CheckExact(p)) {
    const char* other = PyCapsule_GetName(p);
    got = "a capsule named " + std::string(other == nullptr ? "nothing" : other);
  }
  refuse_type(name, "a new DLPack capsule from __dlpack__", got);
}

// --- export ---

// What a consumer holds until it calls the deleter.
template <class Managed>
struct Lease {
  Managed managed{};
  py::object owner;
};

// With the GIL held.
template <class Managed>
void delete_lease(Managed* managed) {
  delete static_cast<Lease<Managed>*>(managed->manager_ctx);
}

template <class Managed>
py::object lend_as(const LentTensor& lent) {
  auto lease = std::make_unique<Lease<Managed>>();
  lease->owner = lent.owner;
  Managed& managed = lease->managed;
  managed.dl_tensor = lent.tensor;
  managed.manager_ctx = lease.get();
  // Of a consumer, on whatever thread. What outlives Python is not freed: it ends with the process.
  managed.deleter = [](Managed* ended) {
    const HeldGil gil;
    if (gil) delete_lease(ended);
  };
  if constexpr (kVersioned<Managed>) {
    managed.version = {DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION};
    managed.flags = lent.read_only ? DLPACK_FLAG_BITMASK_READ_ONLY : 0;
  }
  auto capsule = py::reinterpret_steal<py::object>(
      PyCapsule_New(&managed, kNew<Managed>, [](PyObject* unused) {
        // Under another name the tensor belongs to the consumer that took it.
        if (PyCapsule_IsValid(unused, kNew<Managed>) == 0) return;
        delete_lease(static_cast<Managed*>(PyCapsule_GetPointer(unused, kNew<Managed>)));
      }));
  if (!capsule) throw py::error_already_set();
  lease.release();
  return capsule;
}

}  // namespace

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

DLDevice producer_device(const Name& name, py::handle object) {
  if (!py::hasattr(object, "__dlpack__")) {
    refuse_type(name, "an array (NumPy, or an object with __dlpack__)",
                type_name(object) + advice(object));
  }
  if (!py::hasattr(object, "__dlpack_device__")) return {kDLCPU, 0};
  try {
    const py::object device = object.attr("__dlpack_device__")();
    const auto [type, id] = py::cast<std::pair<int32_t, int32_t>>(device);
    return {type, id};
  } catch (py::error_already_set& error) {
    rethrow(error, name, "__dlpack_device__", object);
  } catch (const py::cast_error&) {
    throw_type_error(unreadable(name, object, " whose __dlpack_device__ is no pair of ints"));
  }
}

LentTensor import_capsule(const Name& name, const py::object& capsule) {
  LentTensor lent = take(name, capsule);
  check_header(name, lent.tensor);
  check_on_cpu(name, lent.tensor.device);
  return lent;
}

LentTensor import_dlpack(const Name& name, py::handle object, DLDevice device, int64_t stream) {
  LentTensor lent = take(name, call_dlpack(name, object, device, stream));
  const DLTensor& t = lent.tensor;
  check_header(name, t);
  if (t.data == nullptr && element_count(t) != 0) {
    throw_type_error(unreadable(name, object, " with a null pointer"));
  }
  if (!same_place(t.device, device)) {
    throw_type_error(unreadable(
        name, object,
        " on " + device_name(t.device) + " whose __dlpack_device__ says " + device_name(device)));
  }
  return lent;
}

py::object lend(const LentTensor& lent, py::handle max_version) {
  const bool versioned =
      !max_version.is_none() && py::cast<py::tuple>(max_version)[0].cast<int64_t>() >= 1;
  return versioned ? lend_as<DLManagedTensorVersioned>(lent) : lend_as<DLManagedTensor>(lent);
}

// --- the table ---

namespace {

constexpr const char* kExchangeCapsule = "dlpack_exchange_api";

// Names that are looked up often; they live as long as the process.
struct KnownNames {
  PyObject* table = PyUnicode_InternFromString("__dlpack_c_exchange_api__");
  PyObject* is_neg = PyUnicode_InternFromString("is_neg");
  PyObject* is_conj = PyUnicode_InternFromString("is_conj");
};

const KnownNames& known_names() {
  static const KnownNames made;
  return made;
}

// That of the type itself, and not of a base; null without a Python error.
const ExchangeTable* own_table(PyTypeObject* type) {
  if (type->tp_dict == nullptr) return nullptr;
  PyObject* capsule = PyDict_GetItemWithError(type->tp_dict, known_names().table);
  if (capsule == nullptr || !PyCapsule_IsValid(capsule, kExchangeCapsule)) {
    PyErr_Clear();
    return nullptr;
  }
  const void* header = PyCapsule_GetPointer(capsule, kExchangeCapsule);
  for (auto* h = static_cast<const ExchangeTable::Header*>(header); h != nullptr; h = h->previous) {
    if (h->version.major == DLPACK_MAJOR_VERSION) return reinterpret_cast<const ExchangeTable*>(h);
  }
  return nullptr;
}

bool is_parameter(PyTypeObject* type) {
  static PyTypeObject* known = nullptr;  // a type that is not deleted any more
  if (type == known) return true;
  if (type->tp_dict == nullptr || std::strcmp(type->tp_name, "Parameter") != 0) return false;
  PyObject* module = PyDict_GetItemString(type->tp_dict, "__module__");
  if (module == nullptr || PyUnicode_Check(module) == 0 ||
      PyUnicode_CompareWithASCIIString(module, "torch.nn.parameter") != 0) {
    return false;
  }
  Py_INCREF(type);
  known = type;
  return true;
}

// Whether a method without arguments says yes. Of libraries that do not have it nothing is asked.
bool says(PyObject* object, PyObject* method) {
  PyObject* answer = PyObject_CallMethodNoArgs(object, method);
  if (answer == nullptr) {
    PyErr_Clear();
    return false;
  }
  Py_DECREF(answer);
  return answer == Py_True;
}

}  // namespace

const ExchangeTable* exchange_table(PyTypeObject* type) {
  const ExchangeTable* table = own_table(type);
  if (table != nullptr || type->tp_base == nullptr || !is_parameter(type)) return table;
  return own_table(type->tp_base);
}

bool look_at(const ExchangeTable& table, PyObject* array, DLTensor& tensor,
             DLManagedTensorVersioned** managed) {
  const auto failed = [&] {
    PyErr_Clear();
    return false;
  };
  DLManagedTensorVersioned* lent = nullptr;
  if (managed == nullptr) {
    if (table.look(array, &tensor) != 0) return failed();
  } else {
    if (table.lend(array, &lent) != 0) return failed();
    tensor = lent->dl_tensor;
  }
  const bool usable = tensor.device.device_type == kDLCPU && tensor.ndim <= kMaxRank - 2 &&
                      (tensor.data != nullptr || element_count(tensor) == 0) &&
                      !says(array, known_names().is_neg) &&
                      !(tensor.dtype.code == kDLComplex && says(array, known_names().is_conj));
  if (usable && managed != nullptr) {
    *managed = lent;  // with the shape that `tensor` refers to
  } else if (lent != nullptr && lent->deleter != nullptr) {
    lent->deleter(lent);
  }
  return usable;
}

}  // namespace fusedrnn::bindings
