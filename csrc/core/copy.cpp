#include "core/copy.h"

#include <cstring>

namespace fusedrnn {
namespace {

template <int Bytes>
void copy_row(const char* from, int64_t stride, int64_t n, char* to) {
  for (int64_t i = 0; i < n; ++i) std::memcpy(to + i * Bytes, from + i * stride, Bytes);
}

void copy_row(const char* from, int64_t stride, int64_t n, int64_t item_bytes, char* to) {
  if (stride == item_bytes) {
    std::memcpy(to, from, static_cast<size_t>(n * item_bytes));
  } else if (item_bytes == 2) {
    copy_row<2>(from, stride, n, to);
  } else if (item_bytes == 4) {
    copy_row<4>(from, stride, n, to);
  } else if (item_bytes == 8) {
    copy_row<8>(from, stride, n, to);
  } else {
    for (int64_t i = 0; i < n; ++i) {
      std::memcpy(to + i * item_bytes, from + i * stride, static_cast<size_t>(item_bytes));
    }
  }
}

// Returns the address behind what it wrote.
char* copy_axis(const char* from, int rank, const int64_t* shape, const int64_t* strides,
                int64_t item_bytes, char* to) {
  if (rank == 1) {
    copy_row(from, strides[0], shape[0], item_bytes, to);
    return to + shape[0] * item_bytes;
  }
  for (int64_t i = 0; i < shape[0]; ++i) {
    to = copy_axis(from + i * strides[0], rank - 1, shape + 1, strides + 1, item_bytes, to);
  }
  return to;
}

}  // namespace

void copy_to_dense(const void* data, int rank, const int64_t* shape, const int64_t* strides,
                   int64_t item_bytes, void* dense) {
  const char* from = static_cast<const char*>(data);
  char* to = static_cast<char*>(dense);
  for (int i = 0; i < rank; ++i) {
    if (shape[i] == 0) return;
  }
  if (rank == 0) {
    std::memcpy(to, from, static_cast<size_t>(item_bytes));
  } else {
    copy_axis(from, rank, shape, strides, item_bytes, to);
  }
}

}  // namespace fusedrnn
