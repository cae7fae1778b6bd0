// The consumer's side of DLPack's Python protocol.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>

#include "core/error.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn::bindings {

namespace py = pybind11;

// "x: expected an array whose memory can be read, got Class", and at its end what to do where
// fusedrnn._unreadable knows, or else `why` not.
std::string unreadable(const Name& name, py::handle object, const std::string& why);

// That, from what a method of an array raised. Exceptions that do not speak of the array pass.
[[noreturn]] void rethrow(py::error_already_set& error, const Name& name, const char* method,
                          py::handle object);

// Calls a method without arguments.
py::object call(const Name& name, py::handle object, const char* method);

// A tensor that a producer lent: its deleter runs once, when this is destroyed (with the GIL held).
class ManagedTensor {
 public:
  // Takes the tensor out of a capsule, which is renamed as the protocol asks.
  ManagedTensor(const Name& name, const py::object& capsule);
  ManagedTensor(ManagedTensor&& other) noexcept;
  ~ManagedTensor();
  ManagedTensor(const ManagedTensor&) = delete;
  ManagedTensor& operator=(const ManagedTensor&) = delete;

  // Throws for another major version, of which only the deleter's place is known, and where there
  // is no memory.
  void check(const Name& name, py::handle lender) const;

  const DLTensor& tensor() const;
  // The legacy protocol does not say: what it lends is not written to.
  bool read_only() const;

 private:
  DLManagedTensor* legacy_ = nullptr;  // one of the two is set
  DLManagedTensorVersioned* versioned_ = nullptr;
};

// Where __dlpack_device__ says that the array lies; the CPU where there is no such method, which is
// older than other devices. Throws where `object` is no array.
DLDevice producer_device(const Name& name, py::handle object);

// Calls __dlpack__: of this library's version, or without it for producers that know none. Throws
// where it raises.
ManagedTensor import_dlpack(const Name& name, py::handle object);

// The same of an array on a CUDA device, through its kind (fusedrnn.cuda_arrays). Work on `stream`,
// written as in DLPack's protocol, waits for that which writes the array.
ManagedTensor import_dlpack_on_cuda(const Name& name, py::handle object, int64_t stream);

}  // namespace fusedrnn::bindings
