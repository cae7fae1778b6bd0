// DLPack's table of C functions (version 1.2 of DLPack and later), which a library's array type has
// as `__dlpack_c_exchange_api__`.
#pragma once

#include <cstdint>

#include "fusedrnn/dlpack_abi.h"

namespace fusedrnn::bindings {

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

}  // namespace fusedrnn::bindings
