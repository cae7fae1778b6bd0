// DLPack's table of C functions (version 1.2 of DLPack and later), which a library's array type has
// as `__dlpack_c_exchange_api__`: arrays in and out without a Python call.
#pragma once

#include <pybind11/pybind11.h>

#include "bindings/dlpack_exchange_abi.h"
#include "core/tensor.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn::bindings {

namespace py = pybind11;

// Null where `type` has no table of a version that is known here. Of derived types, whose elements
// may be anywhere, only PyTorch's Parameter has its base's. With the GIL held, as all of this.
const ExchangeTable* exchange_table(PyTypeObject* type);

// What an array on the CPU is in memory: its managed tensor, or without `managed`, where the table
// can `look`, a tensor that is good as long as the array is, nobody gives it other memory, and the
// GIL is held. False, without a Python error, where DLPack has no words for it, where nothing is in
// memory, or where what it stands for are other values than those (views that PyTorch negates or
// conjugates when it reads).
bool look_at(const ExchangeTable& table, PyObject* array, DLTensor& tensor,
             DLManagedTensorVersioned** managed);

}  // namespace fusedrnn::bindings
