#include "bindings/errors.h"

#include <pybind11/pybind11.h>

#include <exception>
#include <new>
#include <string>

#include "bindings/register.h"
#include "core/error.h"
#include "core/tensor.h"

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

namespace {

// What stands behind the last of `mark`, up to one of `ends`.
std::string behind(const std::string& text, const std::string& mark, const char* ends) {
  const size_t at = text.rfind(mark);
  if (at == std::string::npos) return "";
  const size_t begin = at + mark.size();
  return text.substr(begin, text.find_first_of(ends, begin) - begin);
}

// What Python's user does about one floating type beside another, which core cannot know.
std::string with_advice(const Error& error) {
  const std::string text = error.what();
  const std::string wanted = behind(text, "expected dtype ", " ,"),
                    got = behind(text, ", got ", "");
  const bool casts = error.status() == FUSEDRNN_INVALID_TYPE && find_dtype(wanted) != nullptr &&
                     find_dtype(got) != nullptr;
  return casts ? text + "; use .astype('" + wanted + "')" : text;
}

}  // namespace

void register_errors() {
  py::register_local_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const Error& error) {
      PyErr_SetString(exception_type(error.status()), with_advice(error).c_str());
    } catch (const std::bad_alloc& error) {
      PyErr_SetString(PyExc_MemoryError, message_of(error));
    }
  });
}

}  // namespace fusedrnn::bindings
