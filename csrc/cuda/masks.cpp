#include "cuda/masks.h"

#include <algorithm>

#include "core/tensor.h"
#include "cuda/kernels/masks.h"

namespace fusedrnn::cuda {

Masks::Masks(const CudaMasks& masks, const Problem& problem, const Order& order)
    : masks_(masks), problem_(problem), order_(order) {}

void Masks::reserve(Layout& layout) {
  if (on_host(masks_.lengths)) lengths_ = layout.reserve({problem_.B}, sizeof(uint64_t));
  if (on_host(masks_.mask)) mask_ = layout.reserve({problem_.T, problem_.B}, 1);
  if (on_host(masks_.resets)) resets_ = layout.reserve({problem_.T, problem_.B}, 1);
}

void Masks::make_flags(char* memory, uint8_t* flags, const DeviceOrder& order,
                       cudaStream_t stream) const {
  MaskArrays arrays{};
  order_.send(order, stream);
  arrays.T = problem_.T;
  arrays.B = problem_.B;
  arrays.reverse = problem_.reverse;
  arrays.shows_padding = masks_.shows_padding;
  arrays.flags = flags;
  arrays.order = order;
  arrays.ordered = order_.any();
  if (!order_.any()) arrays.lengths = lengths(memory + lengths_, stream);
  arrays.mask = bits_of(masks_.mask, memory + mask_, stream);
  arrays.resets = bits_of(masks_.resets, memory + resets_, stream);
  cuda::make_flags(arrays, stream);
}

DeviceIntegers Masks::lengths(char* to, cudaStream_t stream) const {
  if (masks_.lengths == nullptr) return {};
  if (on_host(masks_.lengths)) {
    auto* const sent = reinterpret_cast<uint64_t*>(to);
    send_lengths(sent, stream);
    return {sent, sizeof(uint64_t), false, 1};
  }
  const DLTensor& t = *masks_.lengths;
  return {data_of(t), t.dtype.bits / 8, t.dtype.code == kDLInt, stride_of(t, 0)};
}

void Masks::send_lengths(uint64_t* to, cudaStream_t stream) const {
  for (int64_t begin = 0; begin < problem_.B; begin += kCarriedWords) {
    CarriedWords carried{};
    const int64_t count = std::min<int64_t>(problem_.B - begin, kCarriedWords);
    for (int64_t i = 0; i < count; ++i) {
      // Limited although checked: another thread may write the caller's memory.
      const int64_t length = read_integer(*masks_.lengths, begin + i);
      carried.words[i] = static_cast<uint64_t>(std::clamp<int64_t>(length, 0, problem_.T));
    }
    write_words(carried, count, to + begin, stream);
  }
}

DeviceBits Masks::bits_of(const DLTensor* tensor, char* to, cudaStream_t stream) const {
  if (tensor == nullptr) return {};
  const auto* const data = static_cast<const uint8_t*>(data_of(*tensor));
  const int64_t t_stride = stride_of(*tensor, 0), b_stride = stride_of(*tensor, 1);
  if (!on_host(tensor)) return {data, t_stride, b_stride};
  constexpr int64_t kBits = int64_t{kCarriedWords} * 64;
  auto* const sent = reinterpret_cast<uint8_t*>(to);
  const int64_t total = problem_.T * problem_.B;
  for (int64_t begin = 0; begin < total; begin += kBits) {
    CarriedWords carried{};
    const int64_t count = std::min(total - begin, kBits);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t t = (begin + i) / problem_.B, b = (begin + i) % problem_.B;
      const uint64_t bit = data[t * t_stride + b * b_stride] != 0;
      carried.words[i / 64] |= bit << (i % 64);
    }
    write_bits(carried, count, sent + begin, stream);
  }
  return {sent, problem_.B, 1};
}

}  // namespace fusedrnn::cuda
