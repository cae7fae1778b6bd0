#include "bindings/dlpack_exchange.h"

#include <cstring>

namespace fusedrnn::bindings {
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

bool has_elements(const DLTensor& t) {
  for (int i = 0; i < t.ndim; ++i) {
    if (t.shape[i] == 0) return false;
  }
  return true;
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
                      (tensor.data != nullptr || !has_elements(tensor)) &&
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
