// fusedrnn::Error as Python exceptions; register_errors() makes pybind11 know it.
#pragma once

#include <Python.h>

#include "fusedrnn/fusedrnn.h"

namespace fusedrnn::bindings {

// ValueError, TypeError, MemoryError or RuntimeError; borrowed.
PyObject* exception_type(fusedrnn_status status);

}  // namespace fusedrnn::bindings
