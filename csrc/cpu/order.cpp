#include "cpu/order.h"

#include <algorithm>
#include <cstdint>
#include <numeric>

namespace fusedrnn::cpu {

namespace {

bool is_valid(uint8_t flag) { return (flag & kValid) != 0; }

// By sequence, the time after the last step that exists.
std::vector<int64_t> ends_of(const uint8_t* flags, int64_t T, int64_t B) {
  std::vector<int64_t> ends(static_cast<size_t>(B), 0);
  int64_t left = B;
  for (int64_t t = T - 1; t >= 0 && left > 0; --t) {
    for (int64_t b = 0; b < B; ++b) {
      int64_t& end = ends[static_cast<size_t>(b)];
      if (end != 0 || !is_valid(flags[t * B + b])) continue;
      end = t + 1;
      --left;
    }
  }
  return ends;
}

}  // namespace

SequenceOrder::SequenceOrder(const uint8_t* flags, int64_t T, int64_t B)
    : flags_(flags), T_(T), B_(B) {
  if (flags == nullptr || B > INT32_MAX) return;
  const uint8_t* const last = flags + (T - 1) * B;
  if (std::all_of(last, last + B, is_valid)) return;
  const std::vector<int64_t> ends = ends_of(flags, T, B);
  numbers_.resize(static_cast<size_t>(B));
  std::iota(numbers_.begin(), numbers_.end(), 0);
  const auto end_of = [&](int32_t number) { return ends[static_cast<size_t>(number)]; };
  std::stable_sort(numbers_.begin(), numbers_.end(),
                   [&](int32_t a, int32_t b) { return end_of(a) > end_of(b); });
  places_.resize(numbers_.size());
  for (size_t place = 0; place < numbers_.size(); ++place) {
    places_[static_cast<size_t>(numbers_[place])] = static_cast<int32_t>(place);
    ends_.push_back(end_of(numbers_[place]));
  }
  order_ = {numbers_.data(), places_.data(), ends_.data()};
  shows_padding_ = (last[numbers_.back()] & kShown) != 0;
}

Order SequenceOrder::round_robin(int groups) {
  if (order_.numbers == nullptr) return order_;
  std::vector<int32_t> rows;  // the sequence of each row, group by group
  for (int64_t group = 0; group < groups; ++group) {
    for (int64_t place = group; place < B_; place += groups) {
      rows.push_back(numbers_[static_cast<size_t>(place)]);
    }
  }
  flags_by_row_.resize(static_cast<size_t>(T_ * B_));
  uint8_t* to = flags_by_row_.data();
  for (const uint8_t* from = flags_; from < flags_ + T_ * B_; from += B_) {
    for (const int32_t number : rows) *to++ = from[number];
  }
  order_.flags = flags_by_row_.data();
  return order_;
}

Profile SequenceOrder::profile() const {
  if (ends_.empty()) return {1, {{T_, B_}}};
  Profile profile;
  const int64_t steps = ends_.front();
  profile.count = static_cast<int>(std::min<int64_t>(steps, Profile::kMostParts));
  for (int i = 0; i < profile.count; ++i) {
    const int64_t begin = steps * i / profile.count, end = steps * (i + 1) / profile.count;
    int64_t rows = 0;
    for (const int64_t last : ends_) rows += std::clamp(last, begin, end) - begin;
    profile.parts[i] = {end - begin, divide_up(rows, end - begin)};
  }
  return profile;
}

}  // namespace fusedrnn::cpu
