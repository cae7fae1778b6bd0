// The emulator's cuda/device/memory.h: see engine/weak_memory.h.
#pragma once

#include <cstdint>

#include "cuda/device/inline.h"
#include "engine/kernel_run.h"
#include "engine/weak_memory.h"

namespace fusedrnn::cuda::device {

struct ClusterScope;
struct GpuScope;

struct alignas(16) Bits128 {
  uint64_t low, high;
};

namespace memory_detail {

template <class T>
constexpr void check_size() {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 16);
}

}  // namespace memory_detail

template <class T>
FUSEDRNN_DEVICE T load_weak(const T* p) {
  T value;
  emulator::weak_load(p, &value, sizeof value);
  return value;
}
template <class T>
FUSEDRNN_DEVICE void store_weak(T* p, T value) {
  emulator::weak_store(p, &value, sizeof value);
}

template <class Scope = GpuScope, class T>
FUSEDRNN_DEVICE T load_relaxed(const T* p,
                               const emulator::Where& where = emulator::Where::current()) {
  memory_detail::check_size<T>();
  T value;
  emulator::relaxed_load(p, &value, sizeof value, where);
  return value;
}
template <class Scope = GpuScope, class T>
FUSEDRNN_DEVICE T load_acquire(const T* p,
                               const emulator::Where& where = emulator::Where::current()) {
  const T value = load_relaxed<Scope>(p, where);
  emulator::renew(emulator::self());
  return value;
}
template <class Scope = GpuScope, class T>
FUSEDRNN_DEVICE void store_relaxed(T* p, T value) {
  memory_detail::check_size<T>();
  emulator::relaxed_store(p, &value, sizeof value);
}
template <class Scope = GpuScope, class T>
FUSEDRNN_DEVICE void store_release(T* p, T value) {
  emulator::publish(emulator::self());
  store_relaxed<Scope>(p, value);
}

template <class Scope = GpuScope>
FUSEDRNN_DEVICE uint32_t atomic_add(uint32_t* p, uint32_t value,
                                    const emulator::Where& where = emulator::Where::current()) {
  return emulator::relaxed_add(p, value, where);
}
template <class Scope = GpuScope>
FUSEDRNN_DEVICE uint32_t atomic_add_release(
    uint32_t* p, uint32_t value, const emulator::Where& where = emulator::Where::current()) {
  emulator::publish(emulator::self());
  return emulator::relaxed_add(p, value, where);
}

template <class Scope = GpuScope>
FUSEDRNN_DEVICE void fence() {
  emulator::publish(emulator::self());
  emulator::renew(emulator::self());
}

template <class Scope = GpuScope, class T, class Done>
FUSEDRNN_DEVICE T wait_until(const T* p, const Done& done,
                             const emulator::Where& where = emulator::Where::current()) {
  T value = load_relaxed<Scope>(p, where);
  while (!done(value)) value = load_relaxed<Scope>(p, where);
  return value;
}

template <class T>
FUSEDRNN_DEVICE T load_streaming(const T* p) {
  memory_detail::check_size<T>();
  return *p;
}
template <class T>
FUSEDRNN_DEVICE void store_streaming(T* p, T value) {
  memory_detail::check_size<T>();
  *p = value;
}

}  // namespace fusedrnn::cuda::device
