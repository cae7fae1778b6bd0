// Where the pieces of one allocation lie: first reserved, then, when there is memory, found in it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>

#include "core/error.h"

namespace fusedrnn::cuda {

class Layout {
 public:
  static constexpr size_t kAlignment = 256;  // of every piece

  // Reserves as many elements as the product of `factors`; returns the piece's offset.
  size_t reserve(std::initializer_list<int64_t> factors, size_t item_bytes) {
    size_t bytes = item_bytes;
    for (const int64_t factor : factors) bytes = multiplied(bytes, static_cast<size_t>(factor));
    const size_t offset = total_;
    if (bytes > kLargest - total_) throw_too_large();
    total_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    return offset;
  }
  size_t total() const { return total_; }

 private:
  static constexpr size_t kLargest = std::numeric_limits<int64_t>::max() / 2;

  static size_t multiplied(size_t a, size_t b) {
    if (b != 0 && a > kLargest / b) throw_too_large();
    return a * b;
  }
  [[noreturn]] static void throw_too_large() {
    throw Error(FUSEDRNN_OUT_OF_MEMORY, "out of memory: the problem is too large to address");
  }

  size_t total_ = 0;
};

}  // namespace fusedrnn::cuda
