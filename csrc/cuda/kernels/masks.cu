#include "cuda/kernels/masks.h"

#include "core/problem.h"
#include "cuda/device/launch.h"
#include "cuda/kernels/elements.h"

namespace fusedrnn::cuda {
namespace {

// An integer of whatever width, limited to 0..limit.
FUSEDRNN_DEVICE int64_t limited(const DeviceIntegers& integers, int64_t i, int64_t limit) {
  // Byte by byte, lowest first: arrays of the caller need not be aligned.
  const uint8_t* p =
      static_cast<const uint8_t*>(integers.data) + i * integers.stride * integers.bytes;
  uint64_t value = 0;
  for (int byte = 0; byte < integers.bytes; ++byte) {
    value |= static_cast<uint64_t>(p[byte]) << (8 * byte);
  }
  const bool negative = integers.is_signed && (p[integers.bytes - 1] & 0x80u) != 0;
  if (negative) return 0;
  return value < static_cast<uint64_t>(limit) ? static_cast<int64_t>(value) : limit;
}

FUSEDRNN_DEVICE bool bit_at(const DeviceBits& bits, int64_t t, int64_t b, bool otherwise) {
  return bits.data == nullptr ? otherwise : bits.data[t * bits.t_stride + b * bits.b_stride] != 0;
}

__global__ void __launch_bounds__(kElementBlock) flags_kernel(MaskArrays m) {
  for_elements(m.T, m.B, [&](int64_t t, int64_t place) {
    const int64_t b = m.ordered ? m.order.numbers[place] : place;
    const int64_t length = m.ordered                   ? m.order.ends[place]
                           : m.lengths.data == nullptr ? m.T
                                                       : limited(m.lengths, b, m.T);
    unsigned flag = m.shows_padding ? kShown : 0;
    if (t < length && bit_at(m.mask, t, b, true)) {
      // A reset stands before its step: the state enters that step, or in reverse leaves it for
      // the one that exists before it.
      int64_t boundary = t;
      if (m.reverse) {
        ++boundary;
        while (boundary < length && !bit_at(m.mask, boundary, b, true)) ++boundary;
      }
      flag = kValid | kShown;
      if (boundary < length && bit_at(m.resets, boundary, b, false)) flag |= kCut;
    }
    m.flags[t * m.B + place] = static_cast<uint8_t>(flag);
    if (m.ordered) return;
    if (t == 0) {
      m.order.numbers[b] = b;
      m.order.ends[b] = m.T;
    }
    if (b == 0) {
      m.order.first_rows[t] = t * m.B;
      if (t + 1 == m.T) m.order.first_rows[m.T] = m.T * m.B;
    }
  });
}

__global__ void __launch_bounds__(kElementBlock)
    words_kernel(CarriedWords carried, int64_t count, uint64_t* to) {
  for_elements(1, count, [&](int64_t, int64_t i) { to[i] = carried.words[i]; });
}

__global__ void __launch_bounds__(kElementBlock)
    bits_kernel(CarriedWords carried, int64_t count, uint8_t* to) {
  for_elements(1, count, [&](int64_t, int64_t i) {
    to[i] = static_cast<uint8_t>(carried.words[i / 64] >> (i % 64) & 1u);
  });
}

}  // namespace

void make_flags(const MaskArrays& masks, cudaStream_t stream) {
  device::launch(flags_kernel, shape_of_elements(masks.T, masks.B, "make_flags"), stream, masks);
}

void write_words(const CarriedWords& carried, int64_t count, uint64_t* to, cudaStream_t stream) {
  device::launch(words_kernel, shape_of_elements(1, count, "write_words"), stream, carried, count,
                 to);
}

void write_bits(const CarriedWords& carried, int64_t count, uint8_t* to, cudaStream_t stream) {
  device::launch(bits_kernel, shape_of_elements(1, count, "write_bits"), stream, carried, count,
                 to);
}

}  // namespace fusedrnn::cuda
