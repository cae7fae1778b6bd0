// How every function of an instruction set's unit is declared.
//
// Always inlined and internal: no symbol compiled with wide instructions may reach the linker under
// a name that another unit shares, or the linker may keep the wide copy for every machine.
#pragma once

#define FUSEDRNN_INLINE static inline __attribute__((always_inline))
// Member functions cannot be `static` for linkage; their class already lives in the set's
// namespace.
#define FUSEDRNN_MEMBER inline __attribute__((always_inline))
#define FUSEDRNN_LAMBDA __attribute__((always_inline))

// Inlines all that it calls, and what these call, at once. What is inlined level by level, each
// function into its callers, takes the compiler up to twice as long.
#define FUSEDRNN_FLAT __attribute__((flatten))

// A function template that is compiled once for its arguments, not once more in every caller.
#define FUSEDRNN_ONCE __attribute__((noinline))

// Unrolls the loop that follows, so that an array of vectors indexed in it stays in registers. A
// cell has up to some twenty vectors of a kind.
#if defined(__clang__)
#define FUSEDRNN_UNROLL _Pragma("clang loop unroll(full)")
#else
#define FUSEDRNN_UNROLL _Pragma("GCC unroll 32")
#endif
