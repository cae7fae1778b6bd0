// Global memory that several blocks use in one launch, and streaming through the caches.
//
// Accesses by the names here are what PTX's memory model calls weak, relaxed, acquire and release;
// memory that is exchanged within a launch is read and written by these names alone. T is a number
// or a struct of 4, 8 or 16 bytes, aligned to its size, and each access is a single one.
//
//   weak       as plain C++: other threads may see it late and in any order
//   relaxed    seen by others at once, but it orders nothing else
//   release    what this thread wrote before, and what it saw others write, is visible to those who
//              acquire what it writes
//   acquire    what was released before the value that it reads is visible behind it
#pragma once

#include <cstdint>

#include "cuda/device/inline.h"

namespace fusedrnn::cuda::device {

// Whom an access is ordered for.
struct ClusterScope;  // the blocks of the cluster; needs sm_90
struct GpuScope;

struct alignas(16) Bits128 {
  uint64_t low, high;
};

namespace memory_detail {

template <int Bytes>
struct Word;
template <>
struct Word<4> {
  using Bits = uint32_t;
  using Vector = unsigned;  // what CUDA's own functions take
};
template <>
struct Word<8> {
  using Bits = uint64_t;
  using Vector = uint2;
};
template <>
struct Word<16> {
  using Bits = Bits128;
  using Vector = uint4;
};
template <class T>
using BitsOf = typename Word<static_cast<int>(sizeof(T))>::Bits;

template <class To, class From>
FUSEDRNN_DEVICE To cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

template <class Scope>
struct Access;

// 16 bytes go through a register of 128 bits, which C++ has no name for.
#define FUSEDRNN_LOAD(order, scope)                                                             \
  static FUSEDRNN_DEVICE void load_##order(const void* p, uint32_t& v) {                        \
    asm volatile("ld." #order "." scope ".global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory"); \
  }                                                                                             \
  static FUSEDRNN_DEVICE void load_##order(const void* p, uint64_t& v) {                        \
    asm volatile("ld." #order "." scope ".global.u64 %0, [%1];" : "=l"(v) : "l"(p) : "memory"); \
  }                                                                                             \
  static FUSEDRNN_DEVICE void load_##order(const void* p, Bits128& v) {                         \
    asm volatile("{ .reg .b128 t; ld." #order "." scope                                         \
                 ".global.b128 t, [%2]; mov.b128 {%0, %1}, t; }"                                \
                 : "=l"(v.low), "=l"(v.high)                                                    \
                 : "l"(p)                                                                       \
                 : "memory");                                                                   \
  }
#define FUSEDRNN_STORE(order, scope)                                                          \
  static FUSEDRNN_DEVICE void store_##order(void* p, uint32_t v) {                            \
    asm volatile("st." #order "." scope ".global.u32 [%0], %1;" ::"l"(p), "r"(v) : "memory"); \
  }                                                                                           \
  static FUSEDRNN_DEVICE void store_##order(void* p, uint64_t v) {                            \
    asm volatile("st." #order "." scope ".global.u64 [%0], %1;" ::"l"(p), "l"(v) : "memory"); \
  }                                                                                           \
  static FUSEDRNN_DEVICE void store_##order(void* p, Bits128 v) {                             \
    asm volatile("{ .reg .b128 t; mov.b128 t, {%1, %2}; st." #order "." scope                 \
                 ".global.b128 [%0], t; }" ::"l"(p),                                          \
                 "l"(v.low), "l"(v.high)                                                      \
                 : "memory");                                                                 \
  }
#define FUSEDRNN_ATOMICS(order, scope)                                    \
  static FUSEDRNN_DEVICE uint32_t add_##order(uint32_t* p, uint32_t v) {  \
    uint32_t old;                                                         \
    asm volatile("atom." #order "." scope ".global.add.u32 %0, [%1], %2;" \
                 : "=r"(old)                                              \
                 : "l"(p), "r"(v)                                         \
                 : "memory");                                             \
    return old;                                                           \
  }
#define FUSEDRNN_ACCESS(Scope, scope)                                                              \
  template <>                                                                                      \
  struct Access<Scope> {                                                                           \
    FUSEDRNN_LOAD(relaxed, scope)                                                                  \
    FUSEDRNN_LOAD(acquire, scope)                                                                  \
    FUSEDRNN_STORE(relaxed, scope)                                                                 \
    FUSEDRNN_STORE(release, scope)                                                                 \
    FUSEDRNN_ATOMICS(relaxed, scope)                                                               \
    FUSEDRNN_ATOMICS(release, scope)                                                               \
    static FUSEDRNN_DEVICE void fence() { asm volatile("fence.acq_rel." scope ";" ::: "memory"); } \
  };

FUSEDRNN_ACCESS(GpuScope, "gpu")
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
FUSEDRNN_ACCESS(ClusterScope, "cluster")
#else
// There are no clusters: kernels that use them are compiled, and never launched.
template <>
struct Access<ClusterScope> : Access<GpuScope> {};
#endif

#undef FUSEDRNN_LOAD
#undef FUSEDRNN_STORE
#undef FUSEDRNN_ATOMICS
#undef FUSEDRNN_ACCESS

}  // namespace memory_detail

template <class T>
FUSEDRNN_DEVICE T load_weak(const T* p) {
  return *p;
}
template <class T>
FUSEDRNN_DEVICE void store_weak(T* p, T value) {
  *p = value;
}

template <class Scope = GpuScope, class T>
FUSEDRNN_DEVICE T load_relaxed(const T* p) {
  memory_detail::BitsOf<T> bits;
  memory_detail::Access<Scope>::load_relaxed(p, bits);
  return memory_detail::cast<T>(bits);
}
template <class Scope = GpuScope, class T>
FUSEDRNN_DEVICE T load_acquire(const T* p) {
  memory_detail::BitsOf<T> bits;
  memory_detail::Access<Scope>::load_acquire(p, bits);
  return memory_detail::cast<T>(bits);
}
template <class Scope = GpuScope, class T>
FUSEDRNN_DEVICE void store_relaxed(T* p, T value) {
  memory_detail::Access<Scope>::store_relaxed(p,
                                              memory_detail::cast<memory_detail::BitsOf<T>>(value));
}
template <class Scope = GpuScope, class T>
FUSEDRNN_DEVICE void store_release(T* p, T value) {
  memory_detail::Access<Scope>::store_release(p,
                                              memory_detail::cast<memory_detail::BitsOf<T>>(value));
}

// Adds, and returns what was there.
template <class Scope = GpuScope>
FUSEDRNN_DEVICE uint32_t atomic_add(uint32_t* p, uint32_t value) {
  return memory_detail::Access<Scope>::add_relaxed(p, value);
}
template <class Scope = GpuScope>
FUSEDRNN_DEVICE uint32_t atomic_add_release(uint32_t* p, uint32_t value) {
  return memory_detail::Access<Scope>::add_release(p, value);
}

// Makes relaxed stores behind it releases, and relaxed loads before it acquires.
template <class Scope = GpuScope>
FUSEDRNN_DEVICE void fence() {
  memory_detail::Access<Scope>::fence();
}

// Reads *p, relaxed, until done(value), which it returns. Only for what a thread that runs at the
// same time will write: one of this block, of its cluster, or of a cooperative launch.
template <class Scope = GpuScope, class T, class Done>
FUSEDRNN_DEVICE T wait_until(const T* p, const Done& done) {
  T value = load_relaxed<Scope>(p);
  while (!done(value)) value = load_relaxed<Scope>(p);
  return value;
}

// What is read or written once and is not to displace the rest of the caches. T of 4, 8 or 16
// bytes.
template <class T>
FUSEDRNN_DEVICE T load_streaming(const T* p) {
  using Vector = typename memory_detail::Word<static_cast<int>(sizeof(T))>::Vector;
  return memory_detail::cast<T>(__ldcs(reinterpret_cast<const Vector*>(p)));
}
template <class T>
FUSEDRNN_DEVICE void store_streaming(T* p, T value) {
  using Vector = typename memory_detail::Word<static_cast<int>(sizeof(T))>::Vector;
  __stcs(reinterpret_cast<Vector*>(p), memory_detail::cast<Vector>(value));
}

}  // namespace fusedrnn::cuda::device
