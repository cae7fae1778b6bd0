// NumPy's element types as DLPack's and back.
#pragma once

#include <pybind11/numpy.h>

#include "core/problem.h"
#include "core/tensor.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn::bindings {

namespace py = pybind11;

// NumPy's functions and types, looked up once.
inline py::detail::npy_api& numpy() {
  static py::detail::npy_api& found = py::detail::npy_api::get();
  return found;
}

// Of no derived type, which may mean something else by its elements.
inline bool is_exactly_numpy(PyObject* object) { return Py_TYPE(object) == numpy().PyArray_Type_; }

// DLPack's of a kind as NumPy writes it ('f', 'i', ...); -1 where it has none.
int dlpack_code(char kind);

// Throws where DLPack has no such type or where its bytes are in another order than the machine's;
// `kind` words the message.
DLDataType dlpack_dtype(const Name& name, const py::dtype& dtype, ElementKind kind);

// Whether a type has been registered with NumPy by a package, as ml_dtypes does its bfloat16.
bool is_registered(int type_number);

// Of a type that networks compute in, in the machine's byte order: whether `descr`, NumPy's of an
// array, is one. Quickly, and without words for others.
bool plain_dtype(PyObject* descr, DLDataType& dtype);

// Throws where NumPy has no such type.
py::dtype numpy_dtype(const Name& name, DLDataType dtype);

// NumPy has no bfloat16, and the package that adds one need not be there: its elements lie in
// arrays of one field of that name, of 16 bits. Read as well, as a type registered under the name.
py::dtype numpy_dtype(Dtype dtype);

}  // namespace fusedrnn::bindings
