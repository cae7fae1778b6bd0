#include "bindings/errors.h"

#include <pybind11/pybind11.h>

#include <exception>
#include <new>

#include "bindings/register.h"
#include "core/error.h"

namespace py = pybind11;

namespace fusedrnn::bindings {

PyObject* exception_type(fusedrnn_status status) {
  switch (status) {
    case FUSEDRNN_INVALID_VALUE:
      return PyExc_ValueError;
    case FUSEDRNN_INVALID_TYPE:
      return PyExc_TypeError;
    case FUSEDRNN_OUT_OF_MEMORY:
      return PyExc_MemoryError;
    default:
      return PyExc_RuntimeError;
  }
}

void register_errors() {
  py::register_local_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const Error& error) {
      PyErr_SetString(exception_type(error.status()), error.what());
    } catch (const std::bad_alloc& error) {
      PyErr_SetString(PyExc_MemoryError, message_of(error));
    }
  });
}

}  // namespace fusedrnn::bindings
