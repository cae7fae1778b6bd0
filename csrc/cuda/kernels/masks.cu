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

__global__ void __launch_bounds__(kElementBlock) flags_kernel(MaskArrays m) {
  // A reset stands between steps t-1 and t. Forward, step t is the one that its state would enter;
  // in reverse the state comes from t to t-1.
  const int64_t shift = m.reverse ? 1 : 0;
  for_elements(m.T, m.B, [&](int64_t t, int64_t b) {
    const int64_t length = m.lengths.data == nullptr ? m.T : limited(m.lengths, b, m.T);
    const int64_t boundary = t + shift;
    unsigned flag = 0;
    if (t < length) flag = kValid | kShown;
    if (t < length && boundary < length && m.resets != nullptr &&
        m.resets[boundary * m.reset_t_stride + b * m.reset_b_stride] != 0) {
      flag |= kCut;
    }
    m.flags[t * m.B + b] = static_cast<uint8_t>(flag);
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
