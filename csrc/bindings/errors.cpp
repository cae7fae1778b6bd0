// fusedrnn::Error as Python exceptions.
#include <pybind11/pybind11.h>

#include <cerrno>
#include <exception>
#include <new>
#include <string>

#include "bindings/register.h"
#include "core/error.h"
#include "core/tensor.h"

namespace py = pybind11;

namespace fusedrnn::bindings {
namespace {

// Borrowed.
PyObject* exception_type(fusedrnn_status status) {
  switch (status) {
    case FUSEDRNN_INVALID_VALUE:
      return PyExc_ValueError;
    case FUSEDRNN_INVALID_TYPE:
      return PyExc_TypeError;
    case FUSEDRNN_OUT_OF_MEMORY:
      return PyExc_MemoryError;
    case FUSEDRNN_FILE_ERROR:
      return PyExc_OSError;
    default:
      return PyExc_RuntimeError;
  }
}

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

// A message may name a path, whose bytes need be no text.
void set_error(PyObject* type, const std::string& message) {
  const auto size = static_cast<Py_ssize_t>(message.size());
  PyObject* const text = PyUnicode_DecodeUTF8(message.data(), size, "surrogateescape");
  if (text == nullptr) return;  // an error all the same
  PyErr_SetObject(type, text);
  Py_DECREF(text);
}

}  // namespace

void register_errors() {
  py::register_local_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const FileError& error) {
      errno = error.code();
      PyErr_SetFromErrnoWithFilename(PyExc_OSError, error.path().c_str());
    } catch (const Error& error) {
      set_error(exception_type(error.status()), with_advice(error));
    } catch (const std::bad_alloc& error) {
      PyErr_SetString(PyExc_MemoryError, message_of(error));
    }
  });
}

}  // namespace fusedrnn::bindings
