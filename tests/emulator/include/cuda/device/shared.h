// The emulator's cuda/device/shared.h: every access is checked against what was taken.
#pragma once

#include <cstdint>
#include <string>

#include "cuda/device/inline.h"
#include "engine/kernel_run.h"

namespace fusedrnn::cuda::device {

template <class T>
class Shared {
 public:
  // `owner`: the block whose memory it is, where that is another one.
  Shared(T* data, int count, const emulator::Block* owner = nullptr)
      : data_(data), count_(count), owner_(owner) {}

  T& operator[](int i) const {
    if (i < 0 || i >= count_) out_of_range("index", i);
    check_owner();
    return data_[i];
  }
  Shared offset(int n) const {
    if (n < 0 || n > count_) out_of_range("offset", n);
    return Shared(data_ + n, count_ - n, owner_);
  }
  T* data() const { return data_; }

  // The emulator's own.
  int count() const { return count_; }
  void check_range(int n) const {
    if (n < 0 || n > count_) out_of_range("a range of", n);
    check_owner();
  }

 private:
  [[noreturn]] __attribute__((noinline)) void out_of_range(const char* what, int i) const {
    emulator::fail("shared memory: " + std::string(what) + " " + std::to_string(i) + " of " +
                   std::to_string(count_) + " elements");
  }

  void check_owner() const {
    if (owner_ != nullptr && owner_->ended == owner_->thread_count) {
      emulator::fail("shared memory of another block, which has ended");
    }
  }

  T* data_;
  int count_;
  const emulator::Block* owner_;
};

class SharedMemory {
 public:
  static constexpr int kAlignment = 16;

  template <class T>
  Shared<T> take(int n, int alignment = kAlignment) {
    emulator::Block& block = *emulator::self().block;
    const auto mask = static_cast<size_t>(alignment) - 1;
    const size_t first = (used_ + mask) & ~mask;
    used_ = first + static_cast<size_t>(n) * sizeof(T);
    if (n < 0 || used_ > block.shared_bytes) {
      emulator::fail("shared memory: takes " + std::to_string(used_) + " bytes, launched with " +
                     std::to_string(block.shared_bytes));
    }
    return Shared<T>(reinterpret_cast<T*>(block.shared + first), n);
  }

 private:
  size_t used_ = 0;
};

}  // namespace fusedrnn::cuda::device
