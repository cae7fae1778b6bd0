// Builtin functions that get their arguments as a C array, without what a call through pybind11
// costs: for a small cell several times the call itself.
#pragma once

#include <pybind11/pybind11.h>

#include <exception>
#include <memory>
#include <string>
#include <utility>

#include "core/error.h"

namespace fusedrnn::bindings {

namespace py = pybind11;

// `Callee` has kName, kFewestArguments, kArguments, and call(PyObject* const* arguments)
// const, which finds None where the last ones were left out.
template <class Callee>
PyObject* call_fast(PyObject* self, PyObject* const* arguments, Py_ssize_t count) {
  try {
    constexpr Py_ssize_t kFewest = Callee::kFewestArguments, kMost = Callee::kArguments;
    if (count < kFewest || count > kMost) {
      std::string wanted = std::to_string(kFewest);
      if (kMost > kFewest) wanted += " to " + std::to_string(kMost);
      throw_type_error(std::string(Callee::kName) + ": expected " + wanted + " arguments, got " +
                       std::to_string(count));
    }
    PyObject* all[kMost];
    for (Py_ssize_t i = 0; i < kMost; ++i) all[i] = i < count ? arguments[i] : Py_None;
    const auto* callee = static_cast<const Callee*>(PyCapsule_GetPointer(self, nullptr));
    return callee->call(all).release().ptr();
  } catch (const std::exception&) {
    py::detail::try_translate_exceptions();
    return nullptr;
  }
}

template <class Callee, class... Arguments>
py::object make_fast(Arguments... arguments) {
  // PyMethodDef has one type of function for all calling conventions.
  static PyMethodDef method = {
      Callee::kName,
      reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&call_fast<Callee>)),
      METH_FASTCALL, nullptr};
  auto callee = std::make_unique<Callee>(std::move(arguments)...);
  // Without a name, which every call would compare.
  const py::capsule self(callee.get(), [](void* p) { delete static_cast<Callee*>(p); });
  callee.release();
  PyObject* function = PyCFunction_NewEx(&method, self.ptr(), nullptr);
  if (function == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(function);
}

}  // namespace fusedrnn::bindings
