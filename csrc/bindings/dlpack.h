// DLPack: Python's protocol, the consumer's side and the producer's, and the table of C functions.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

#include "bindings/dlpack_exchange_abi.h"
#include "core/error.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn::bindings {

namespace py = pybind11;

// In the place of a consumer's stream: it takes care of the order itself.
constexpr int64_t kNoOrder = -1;

struct LentTensor {
  DLTensor tensor;  // lives as long as its owner
  bool read_only;
  py::object owner;
};

// What gives a tensor back to whom it belongs once nobody refers to it.
template <class Managed>
py::capsule owner_of(Managed* managed) {
  return py::capsule(managed, [](void* memory) {
    auto* ended = static_cast<Managed*>(memory);
    if (ended->deleter != nullptr) ended->deleter(ended);
  });
}

// Throws what a method of an array raised as what is wrong with that array, and at its end what to
// do where fusedrnn._unreadable knows. Exceptions that do not speak of the array pass.
[[noreturn]] void rethrow(py::error_already_set& error, const Name& name, const char* method,
                          py::handle object);

// Calls a method without arguments.
py::object call(const Name& name, py::handle object, const char* method);

// Where __dlpack_device__ says that the array lies; the CPU where there is no such method, which is
// older than other devices. Throws where `object` is no array.
DLDevice producer_device(const Name& name, py::handle object);

// Calls __dlpack__, of this library's version or without it for producers that know none; of an
// array on a CUDA device through its kind (fusedrnn.cuda_arrays). Work on `stream`, written as in
// DLPack's protocol, waits for that which writes the array. Throws where nothing can be read of it,
// or where it lies elsewhere than on `device`, which is what it says of itself.
LentTensor import_dlpack(const Name& name, py::handle object, DLDevice device,
                         int64_t stream = kNoOrder);

// Out of a capsule that somebody has made already, of an array on the CPU.
LentTensor import_capsule(const Name& name, const py::object& capsule);

// A capsule for a consumer, which keeps the owner alive until the tensor is given back. Of the
// versioned kind for consumers that know it: `max_version` is what they say of themselves, None
// where they are older than versions.
py::object lend(const LentTensor& lent, py::handle max_version);

// --- the table: arrays in without a Python call ---

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
