// How long threads take to meet, which no table can know: CPUs of one die hand a cache line on in a
// fifth of the time that those of two dies take, and of a virtual machine they move while it runs.
#pragma once

namespace fusedrnn::cpu {

// The nanoseconds in which a number goes from the calling thread to another of the first so many of
// the pool and back, of the farthest of them, and about those that a barrier takes in a step:
// FUSEDRNN_CORE_LATENCY_NS where it is set, else measured at most once a second, in some tens of
// microseconds. 0 where the pool is taken or has fewer threads, and nothing is known.
// Throws while FUSEDRNN_CORE_LATENCY_NS holds no usable number.
double core_latency_nanoseconds(int threads);

}  // namespace fusedrnn::cpu
