#include "bindings/numpy_types.h"

#include <pybind11/gil_safe_call_once.h>

#include <bit>
#include <string>
#include <string_view>
#include <utility>

#include "core/error.h"
#include "core/tensor.h"

namespace fusedrnn::bindings {
namespace {

// Of the types that packages register with NumPy, as ml_dtypes does its own.
constexpr int kFirstRegistered = 256;

using NumPy = py::detail::npy_api;
constexpr int kNumPyHalf = 23;  // NPY_HALF, the only one that pybind11 does not name

// Types that networks compute in and flags have, the likeliest first.
constexpr std::pair<int, DLDataType> kPlain[] = {{NumPy::NPY_FLOAT_, {kDLFloat, 32, 1}},
                                                 {NumPy::NPY_DOUBLE_, {kDLFloat, 64, 1}},
                                                 {kNumPyHalf, {kDLFloat, 16, 1}},
                                                 {NumPy::NPY_BOOL_, {kDLBool, 8, 1}},
                                                 {NumPy::NPY_UBYTE_, {kDLUInt, 8, 1}}};

// The number of the type of that name, once it has been seen: a type stays registered.
constinit int registered_bfloat16 = -1;

bool is_bfloat16(const py::dtype& dtype) {
  if (dtype.kind() != 'V' || dtype.itemsize() != 2) return false;
  const int number = dtype.num();
  if (number < kFirstRegistered) {
    const py::dtype ours = numpy_dtype(Dtype::bfloat16);
    return dtype.is(ours) || dtype.equal(ours);
  }
  if (number == registered_bfloat16) return true;
  if (py::cast<std::string>(dtype.attr("name")) != "bfloat16") return false;
  registered_bfloat16 = number;
  return true;
}

}  // namespace

int dlpack_code(char kind) {
  constexpr std::string_view kKinds = "biufc";
  constexpr int kCodes[] = {kDLBool, kDLInt, kDLUInt, kDLFloat, kDLComplex};
  const size_t i = kKinds.find(kind);
  return i == std::string_view::npos ? -1 : kCodes[i];
}

bool is_registered(int type_number) { return type_number >= kFirstRegistered; }

bool plain_dtype(PyObject* descr, DLDataType& dtype) {
  const auto* proxy = py::detail::array_descriptor_proxy(descr);
  const auto bfloat16 = [&] { return is_bfloat16(py::reinterpret_borrow<py::dtype>(descr)); };
  if (proxy->byteorder != '=' && proxy->byteorder != '|' && proxy->kind != 'V') return false;
  for (const auto& [number, type] : kPlain) {
    if (number != proxy->type_num) continue;
    dtype = type;
    return true;
  }
  dtype = {kDLBfloat, 16, 1};
  return proxy->kind == 'V' && bfloat16();
}

DLDataType dlpack_dtype(const Name& name, const py::dtype& dtype, ElementKind kind) {
  constexpr char kForeignOrder = std::endian::native == std::endian::little ? '>' : '<';
  int code = is_bfloat16(dtype) ? int{kDLBfloat} : dlpack_code(dtype.kind());
  // Some 8-bit floats that packages register call their kind 'f'.
  if (dtype.num() >= kFirstRegistered && code != kDLBfloat) code = -1;
  if (code < 0) throw_wrong_dtype(name, kind, py::cast<std::string>(py::str(dtype)));
  if (dtype.byteorder() == kForeignOrder) {
    refuse_type(name, "an array in the machine's byte order",
                "dtype " + py::cast<std::string>(py::str(dtype)));
  }
  return {static_cast<uint8_t>(code), static_cast<uint8_t>(dtype.itemsize() * 8), 1};
}

py::dtype numpy_dtype(const Name& name, DLDataType dtype) {
  const DtypeInfo* info = find_dtype(dtype);
  if (info != nullptr) return numpy_dtype(info->dtype);
  if (dtype.lanes == 1 && dtype.bits % 8 == 0) {
    try {
      return py::dtype::from_args(py::str(dtype_name(dtype)));
    } catch (const py::error_already_set& error) {
      if (!error.matches(PyExc_TypeError)) throw;  // "float8" is no type of NumPy's
    }
  }
  refuse_type(name, "a dtype that NumPy has", dtype_name(dtype));
}

py::dtype numpy_dtype(Dtype dtype) {
  constexpr int kNumbers[] = {// in the order of Dtype
                              NumPy::NPY_FLOAT_, NumPy::NPY_DOUBLE_, NumPy::NPY_VOID_,
                              kNumPyHalf,        NumPy::NPY_CFLOAT_, NumPy::NPY_CDOUBLE_};
  if (dtype != Dtype::bfloat16) return py::dtype(kNumbers[static_cast<int>(dtype)]);
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<py::dtype> storage;
  return storage
      .call_once_and_store_result([] {
        py::list fields;
        fields.append(py::make_tuple("bfloat16", "=u2"));
        return py::dtype::from_args(fields);
      })
      .get_stored();
}

}  // namespace fusedrnn::bindings
