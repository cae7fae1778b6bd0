#include "bindings/arguments.h"

#include "core/error.h"
#include "core/tensor.h"

namespace fusedrnn::bindings {

bool bool_argument(const Name& name, py::handle object) {
  if (PyBool_Check(object.ptr()) == 0) {
    refuse_type(name, "a bool", type_name(object));
  }
  return object.ptr() == Py_True;
}

std::string str_argument(const Name& name, py::handle object) {
  if (PyUnicode_Check(object.ptr()) == 0) {
    refuse_type(name, "a str", type_name(object));
  }
  return py::cast<std::string>(object);
}

int64_t int_argument(const Name& name, py::handle object, const std::string& where) {
  if (PyBool_Check(object.ptr()) != 0 || PyIndex_Check(object.ptr()) == 0) {
    refuse_type(name, "an int", type_name(object) + where);
  }
  const auto integer = py::reinterpret_steal<py::object>(PyNumber_Index(object.ptr()));
  if (!integer) {  // an array has an __index__ whatever it holds
    if (PyErr_ExceptionMatches(PyExc_TypeError) == 0) throw py::error_already_set();
    PyErr_Clear();
    refuse_type(name, "an int", type_name(object) + where);
  }
  int overflow = 0;
  const int64_t value = PyLong_AsLongLongAndOverflow(integer.ptr(), &overflow);
  if (overflow != 0) {
    refuse_value(name, "an int of 64 bits", py::cast<std::string>(py::repr(integer)) + where);
  }
  if (value == -1 && PyErr_Occurred() != nullptr) throw py::error_already_set();
  return value;
}

Dtype dtype_argument(py::handle object) {
  const std::string name = str_argument("dtype", object);
  const DtypeInfo* info = find_dtype(name);
  if (info == nullptr) throw_wrong_dtype("dtype", ElementKind::floating, name);
  return info->dtype;
}

int32_t compute_argument(py::handle object, Dtype dtype, bool on_cuda) {
  if (object.is_none()) return FUSEDRNN_COMPUTE_SAME;
  const std::string name = str_argument("compute_dtype", object);
  const std::string own = dtype_name(dtype);
  if (name == own) return FUSEDRNN_COMPUTE_SAME;
  std::string wanted = "None or '" + own + "'";
  if (dtype == Dtype::float32) {
    if (name == "bfloat16") return FUSEDRNN_COMPUTE_BFLOAT16;
    if (name == kTfloat32 && on_cuda) return FUSEDRNN_COMPUTE_TFLOAT32;
    wanted =
        on_cuda ? "None, 'float32', 'bfloat16' or 'tfloat32'" : "None, 'float32' or 'bfloat16'";
  }
  wanted += " with arrays of " + own;
  if (name == kTfloat32 && dtype == Dtype::float32) wanted += " on the CPU";
  refuse_value("compute_dtype", wanted, "'" + name + "'");
}

const char* compute_name(Compute compute) {
  constexpr const char* kNames[] = {nullptr, "bfloat16", "int8", kTfloat32};
  return kNames[static_cast<int>(compute)];
}

bool means_dual(py::handle compute_dtype) {
  return PyUnicode_Check(compute_dtype.ptr()) != 0 &&
         py::cast<std::string>(compute_dtype) == "dual";
}

bool is_instance(py::handle object, const char* module, const char* type) {
  return py::isinstance(object, py::module_::import(module).attr(type));
}

std::string type_name(py::handle object) {
  return py::cast<std::string>(py::type::handle_of(object).attr("__name__"));
}

}  // namespace fusedrnn::bindings
