// What tests ask of the emulated devices beyond the CUDA runtime. Any thread may call.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EMULATOR_EXPORT __attribute__((visibility("default")))

// Memory of the current device; null where there is none. It holds NaN.
EMULATOR_EXPORT void* emulator_allocate(size_t bytes);
// Waits for the device, then releases. Functions that return int: 0, or the error of the runtime.
EMULATOR_EXPORT int emulator_release(void* address);

// As the caching allocators of array libraries: memory for use on a stream, which ends behind the
// work that the stream has been given when it is released. What is allocated or released while the
// stream is captured lives as long as the graph, too.
EMULATOR_EXPORT void* emulator_allocate_on(size_t bytes, int device, void* stream);
EMULATOR_EXPORT int emulator_release_on(void* address, int device, void* stream);

// They wait for all work of the device first.
EMULATOR_EXPORT int emulator_copy_to_device(void* to, const void* from, size_t bytes);
EMULATOR_EXPORT int emulator_copy_from_device(void* to, const void* from, size_t bytes);

// On a stream: packs a strided array, the last axis fastest. Strides are in bytes.
EMULATOR_EXPORT int emulator_copy_strided(void* to, const void* from, int ndim,
                                          const int64_t* shape, const int64_t* strides, size_t item,
                                          void* stream);

// Non-blocking streams: ordered against no other.
EMULATOR_EXPORT void* emulator_new_stream(void);
EMULATOR_EXPORT int emulator_end_stream(void* stream);
EMULATOR_EXPORT int emulator_synchronize(void* stream);
EMULATOR_EXPORT int emulator_synchronize_device(void);
// Work of `stream` queued from now on follows what `other` has been given.
EMULATOR_EXPORT int emulator_wait_for_stream(void* stream, void* other);

// Queues a call of a function of the host's, which may read and write the device's memory.
EMULATOR_EXPORT int emulator_call_on(void* stream, void (*function)(void*), void* data);

// Capture of a stream: the executable graph, or null.
EMULATOR_EXPORT int emulator_begin_capture(void* stream);
EMULATOR_EXPORT void* emulator_end_capture(void* stream);
EMULATOR_EXPORT int emulator_launch_graph(void* graph, void* stream);
EMULATOR_EXPORT int emulator_release_graph(void* graph);

EMULATOR_EXPORT int emulator_set_devices(int count);
// What cudaDriverGetVersion says: 0 at first.
EMULATOR_EXPORT void emulator_set_driver(int version);
// The compute capability of all devices: 90, that is 9.0, at first.
EMULATOR_EXPORT void emulator_set_capability(int capability);
EMULATOR_EXPORT int emulator_set_device(int device);
EMULATOR_EXPORT int emulator_get_device(void);

// 0: everything in order. Another: threads, blocks and streams in an order drawn from it, and
// stores that no fence has published delayed. The environment's FUSEDRNN_EMULATOR_SEED is its first
// value.
EMULATOR_EXPORT void emulator_set_seed(uint64_t seed);
// The allocation after n more fails; n < 0: none.
EMULATOR_EXPORT void emulator_fail_allocation_after(int64_t n);
// Released memory is used again after this many bytes have been released behind it; 0: at once.
EMULATOR_EXPORT void emulator_set_quarantine(size_t bytes);
EMULATOR_EXPORT size_t emulator_live_bytes(void);             // after what is queued
EMULATOR_EXPORT int64_t emulator_launches(void);              // kernels that ran
EMULATOR_EXPORT int64_t emulator_blocks(const char* kernel);  // of all launches of its kernels

// What an error returned by a function here, or by the runtime, says on this thread.
EMULATOR_EXPORT const char* emulator_error_text(int error);
// The text of the error that no call survives, "" where there is none; and its end: what was queued
// is discarded, memory stays, and guards are whole again.
EMULATOR_EXPORT const char* emulator_last_error(void);
EMULATOR_EXPORT void emulator_reset_error(void);

#ifdef __cplusplus
}
#endif
