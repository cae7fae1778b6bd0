// DLPack's table of C functions (from version 1.2 of DLPack on), which a library's array type has
// as
// `__dlpack_c_exchange_api__`: arrays in and out without a Python call.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <utility>

#include "core/tensor.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn::bindings {

namespace py = pybind11;

// As DLPack lays it out; a test holds it against PyTorch's header. Functions return 0, or -1 with a
// Python error.
struct ExchangeTable {
  struct Header {
    DLPackVersion version;
    const Header* previous;  // of an older major version, or null
  };

  Header header;
  int (*allocate)(DLTensor* prototype, DLManagedTensorVersioned** out, void* context,
                  void (*set_error)(void* context, const char* kind, const char* message));
  int (*lend)(void* array, DLManagedTensorVersioned** out);
  int (*take)(DLManagedTensorVersioned* tensor, void** out_array);
  int (*look)(void* array, DLTensor* out);  // may be null
  int (*current_stream)(DLDeviceType type, int32_t device, void** out_stream);
};

// Null where `type` has no table of a version that is known here. Of derived types, whose elements
// may be anywhere, only PyTorch's Parameter has its base's. With the GIL held, as all of this.
const ExchangeTable* exchange_table(PyTypeObject* type);

// Somebody's array on the CPU, read through its type's table.
class SeenArray {
 public:
  SeenArray() = default;
  ~SeenArray() { release(); }
  SeenArray(const SeenArray&) = delete;
  SeenArray& operator=(const SeenArray&) = delete;

  // False, without a Python error, where the object is no such array, where there is nothing in
  // memory that DLPack can describe, or where the values are others than those in memory.
  // `keeps`: the memory lives as long as this; else as long as the array does and nobody gives it
  // other memory, for which it takes the GIL.
  bool see(PyObject* object, bool keeps);

  const DLTensor& tensor() const { return managed_ == nullptr ? tensor_ : managed_->dl_tensor; }
  // Whether its owner does not want it written to, where the memory is kept.
  bool read_only() const {
    return managed_ != nullptr && (managed_->flags & DLPACK_FLAG_BITMASK_READ_ONLY) != 0;
  }
  // The memory is somebody else's to release from now on.
  DLManagedTensorVersioned* hand_over() { return std::exchange(managed_, nullptr); }

 private:
  void release() {
    if (managed_ != nullptr && managed_->deleter != nullptr) managed_->deleter(managed_);
    managed_ = nullptr;
  }

  DLTensor tensor_{};
  DLManagedTensorVersioned* managed_ = nullptr;
};

// A new dense array on the CPU, of the library whose table it is; `data`: where its elements are to
// be written.
py::object new_array(const ExchangeTable& table, DLDataType dtype, const Shape& shape, void** data);

}  // namespace fusedrnn::bindings
