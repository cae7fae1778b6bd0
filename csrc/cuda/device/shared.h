// The shared memory of a block, all of it dynamic: its size is part of the launch.
//
//   SharedMemory shared;
//   Shared<float> a = shared.take<float>(n), b = shared.take<float>(m);
//
// carves it in order. Its content is undefined until written.
#pragma once

#include "cuda/device/inline.h"

namespace fusedrnn::cuda::device {

// An array in shared memory.
template <class T>
class Shared {
 public:
  FUSEDRNN_DEVICE explicit Shared(T* data) : data_(data) {}

  FUSEDRNN_DEVICE T& operator[](int i) const { return data_[i]; }
  // Without its first n elements.
  FUSEDRNN_DEVICE Shared offset(int n) const { return Shared(data_ + n); }
  // For functions of device/ alone: accesses through it are not checked in the emulator.
  FUSEDRNN_DEVICE T* data() const { return data_; }

 private:
  T* data_;
};

class SharedMemory {
 public:
  static constexpr int kAlignment = 16;

  FUSEDRNN_DEVICE SharedMemory() {
    extern __shared__ __align__(128) unsigned char fusedrnn_shared_memory[];
    next_ = fusedrnn_shared_memory;
  }

  // The next n elements, aligned to kAlignment or to `alignment`, a power of two up to 128.
  template <class T>
  FUSEDRNN_DEVICE Shared<T> take(int n, int alignment = kAlignment) {
    const auto mask = static_cast<size_t>(alignment - 1);
    next_ = reinterpret_cast<unsigned char*>((reinterpret_cast<size_t>(next_) + mask) & ~mask);
    T* const data = reinterpret_cast<T*>(next_);
    next_ += static_cast<size_t>(n) * sizeof(T);
    return Shared<T>(data);
  }

 private:
  unsigned char* next_;
};

}  // namespace fusedrnn::cuda::device
