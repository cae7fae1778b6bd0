#include "core/flags.h"

#include <algorithm>

#include "core/tensor.h"

namespace fusedrnn {

void write_flags(int64_t T, int64_t B, bool reverse, const DLTensor* lengths,
                 const DLTensor* resets, uint8_t* flags) {
  // A reset stands between steps t-1 and t. Forward, step t is the one that its state would enter;
  // in reverse the state comes from t to t-1.
  const int64_t shift = reverse ? 1 : 0;
  const uint8_t* reset = resets == nullptr ? nullptr : static_cast<uint8_t*>(data_of(*resets));
  const int64_t t_stride = resets == nullptr ? 0 : stride_of(*resets, 0);
  const int64_t b_stride = resets == nullptr ? 0 : stride_of(*resets, 1);

  for (int64_t b = 0; b < B; ++b) {
    // Clamped although checked: another thread may write the caller's memory.
    const int64_t length =
        lengths == nullptr ? T : std::clamp<int64_t>(read_integer(*lengths, b), 0, T);
    for (int64_t t = length; t < T; ++t) flags[t * B + b] = 0;
    for (int64_t t = 0; t < length; ++t) {
      uint8_t flag = kValid | kShown;
      const int64_t boundary = t + shift;
      if (reset != nullptr && boundary < length && reset[boundary * t_stride + b * b_stride] != 0) {
        flag |= kCut;
      }
      flags[t * B + b] = flag;
    }
  }
}

}  // namespace fusedrnn
