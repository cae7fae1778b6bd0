// fusedrnn::Error as Python exceptions.
#pragma once

#include <Python.h>

#include "fusedrnn/fusedrnn.h"

namespace fusedrnn::bindings {

// ValueError, TypeError, MemoryError or RuntimeError; borrowed.
PyObject* exception_type(fusedrnn_status status);

void register_errors();

// Throws what the C ABI reported on this thread.
void throw_on_failure(fusedrnn_status status);

}  // namespace fusedrnn::bindings
