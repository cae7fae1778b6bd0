// Copies between strided and dense memory, of elements of any size.
#pragma once

#include <cstdint>

namespace fusedrnn {

// Writes the elements of a tensor, in row-major order, to `dense`. `strides` are in bytes and may
// be of any sign and any alignment.
void copy_to_dense(const void* data, int rank, const int64_t* shape, const int64_t* strides,
                   int64_t item_bytes, void* dense);

}  // namespace fusedrnn
