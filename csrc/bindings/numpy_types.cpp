#include "bindings/numpy_types.h"

#include <bit>
#include <string>

#include "core/dtype.h"
#include "core/error.h"
#include "core/tensor.h"

namespace fusedrnn::bindings {

DLDataType dlpack_dtype(const char* name, const py::dtype& dtype, ElementKind kind) {
  constexpr char kForeignOrder = std::endian::native == std::endian::little ? '>' : '<';
  int code = 0;
  switch (dtype.kind()) {
    case 'b':
      code = kDLBool;
      break;
    case 'i':
      code = kDLInt;
      break;
    case 'u':
      code = kDLUInt;
      break;
    case 'f':
      code = kDLFloat;
      break;
    case 'c':
      code = kDLComplex;
      break;
    default:
      throw_wrong_dtype(name, kind, py::cast<std::string>(py::str(dtype)));
  }
  if (dtype.byteorder() == kForeignOrder) {
    throw_type_error(expected(name, "an array in the machine's byte order",
                              "dtype " + py::cast<std::string>(py::str(dtype))));
  }
  return {static_cast<uint8_t>(code), static_cast<uint8_t>(dtype.itemsize() * 8), 1};
}

py::dtype numpy_dtype(const char* name, DLDataType dtype) {
  const bool known = dtype.lanes == 1 && dtype.bits % 8 == 0 &&
                     (dtype.code == kDLBool || dtype.code == kDLInt || dtype.code == kDLUInt ||
                      dtype.code == kDLFloat || dtype.code == kDLComplex);
  if (known) {
    try {
      return py::dtype::from_args(py::str(dtype_name(dtype)));
    } catch (const py::error_already_set& error) {
      if (!error.matches(PyExc_TypeError)) throw;  // "float8" is no type of NumPy's
    }
  }
  throw_type_error(expected(name, "a dtype that NumPy has", dtype_name(dtype)));
}

py::dtype numpy_dtype(Dtype dtype) {
  switch (dtype) {
    case Dtype::float32:
      return py::dtype::of<float>();
    case Dtype::float64:
      return py::dtype::of<double>();
    default:
      return numpy_dtype("dtype", dtype_info(dtype).dlpack);
  }
}

}  // namespace fusedrnn::bindings
