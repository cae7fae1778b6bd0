// A tensor lent to a consumer of DLPack's Python protocol.
#pragma once

#include <pybind11/pybind11.h>

#include "fusedrnn/fusedrnn.h"

namespace fusedrnn::bindings {

namespace py = pybind11;

// A capsule over `tensor`, whose shape and strides are copied; `owner` lives until the consumer
// gives the tensor back. Of the versioned kind for consumers that know it: `max_version` is what
// they say of themselves, None where they are older than versions.
py::object lend(const DLTensor& tensor, py::object owner, bool read_only, py::handle max_version);

}  // namespace fusedrnn::bindings
