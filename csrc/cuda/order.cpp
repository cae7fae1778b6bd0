#include "cuda/order.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "core/tensor.h"
#include "cuda/kernels/masks.h"

namespace fusedrnn::cuda {
namespace {

// The least share of all rows that must be missing.
constexpr int64_t kLeastMissing = 16;  // one in so many

void send_words(const std::vector<int64_t>& words, int64_t* to, cudaStream_t stream) {
  for (size_t begin = 0; begin < words.size(); begin += kCarriedWords) {
    CarriedWords carried{};
    const size_t count = std::min<size_t>(words.size() - begin, kCarriedWords);
    std::copy_n(words.begin() + static_cast<ptrdiff_t>(begin), count, carried.words);
    write_words(carried, static_cast<int64_t>(count), reinterpret_cast<uint64_t*>(to + begin),
                stream);
  }
}

}  // namespace

bool on_host(const DLTensor* t) {
  return t != nullptr && t->device.device_type != kDLCUDA &&
         t->device.device_type != kDLCUDAManaged;
}

Order::Order(const Problem& p, const DLTensor* lengths) : Order(p) {
  if (!on_host(lengths)) return;
  const auto count = static_cast<size_t>(B_);
  std::vector<int64_t> by_number(count);
  for (size_t b = 0; b < count; ++b) {
    // Limited although checked: another thread may write the caller's memory.
    by_number[b] = std::clamp<int64_t>(read_integer(*lengths, static_cast<int64_t>(b)), 0, T_);
  }
  const int64_t living = std::accumulate(by_number.begin(), by_number.end(), int64_t{0});
  if (living == 0 || (T_ * B_ - living) * kLeastMissing < T_ * B_) return;
  numbers_.resize(count);
  std::iota(numbers_.begin(), numbers_.end(), 0);
  std::ranges::stable_sort(numbers_, [&](int64_t a, int64_t b) {
    return by_number[static_cast<size_t>(a)] > by_number[static_cast<size_t>(b)];
  });
  ends_.reserve(count);
  for (const int64_t number : numbers_) ends_.push_back(by_number[static_cast<size_t>(number)]);
  first_rows_.reserve(static_cast<size_t>(T_) + 1);
  first_rows_.push_back(0);
  auto lives = static_cast<int64_t>(count);
  for (int64_t time = 0; time < T_; ++time) {
    while (lives > 0 && ends_[static_cast<size_t>(lives) - 1] <= time) --lives;
    first_rows_.push_back(first_rows_.back() + lives);
  }
}

void Order::add_to(GraphKey& key) const {
  key.add(static_cast<int64_t>(ends_.size()));
  for (const int64_t end : ends_) key.add(end);
}

void Order::send(const DeviceOrder& to, cudaStream_t stream) const {
  if (!any()) return;
  send_words(numbers_, to.numbers, stream);
  send_words(ends_, to.ends, stream);
  send_words(first_rows_, to.first_rows, stream);
}

}  // namespace fusedrnn::cuda
