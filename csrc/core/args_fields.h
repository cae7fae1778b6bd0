// The structs of the C ABI as callers of any age fill them: `size` says which fields there are, and
// one that is missing has the value it had before it existed.
#pragma once

#include "fusedrnn/fusedrnn.h"

namespace fusedrnn {

// Throw for a size that no version ever had, and for reserved fields that are not zero.
void check_fields(const fusedrnn_forward_args& args);
void check_fields(const fusedrnn_backward_args& args);

int32_t compute_of(const fusedrnn_forward_args& args);
void* stream_of(const fusedrnn_forward_args& args);
void* stream_of(const fusedrnn_backward_args& args);
const fusedrnn_allocator* allocator_of(const fusedrnn_forward_args& args);

}  // namespace fusedrnn
