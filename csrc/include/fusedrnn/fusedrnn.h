/* fusedrnn: the C ABI over DLPack tensors, for embedding in other languages and frameworks.
 *
 * Letters: T time steps, B batch, I input size, H hidden size, G gate blocks (RNN 1, GRU 3, LSTM
 * 4). Layouts are row-major with the last axis fastest. Gate order: LSTM i, f, g, o; GRU r, z, n.
 *
 *   x [T,B,I]   w_ih [G*H,I]   w_hh [G*H,H]   b_ih, b_hh [G*H]   h0, c0, h_n, c_n [B,H]   y [T,B,H]
 *   lengths [B], any integer type, 0 <= lengths[b] <= T      resets [T,B], bool
 *
 * A null pointer for an optional tensor means: biases and initial states zero, every sequence T
 * long, no resets; for an upstream gradient zero; for a gradient to be written "not wanted".
 *
 * The last axis of every tensor must be dense (stride 1); the other axes may have any stride, and
 * lengths and resets any on every axis. Tensors are float32, float64, bfloat16 (kDLBfloat, 16 bits)
 * or float16 (kDLFloat, 16 bits), one type a call, in CPU memory, aligned to their element. The
 * elements of an output must not share memory with one another or with another output, nor y with
 * x, nor dx with x or dy.
 *
 * With the 16-bit types products, gate maths and sums are in float32. h is rounded at every step, c
 * only where a call begins and ends, the gates that a tape keeps as BFLOAT16 says below, each
 * gradient once at its end.
 *
 * Functions return a status; on failure nothing has been written and fusedrnn_last_error() says,
 * for the calling thread, which argument was wrong, what was expected and what came. All functions
 * may be called from many threads.
 */
#ifndef FUSEDRNN_FUSEDRNN_H_
#define FUSEDRNN_FUSEDRNN_H_

#include <stddef.h>
#include <stdint.h>

#include "fusedrnn/dlpack_abi.h"

#if defined(_WIN32)
#define FUSEDRNN_API __declspec(dllexport)
#else
#define FUSEDRNN_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Grows by one whenever a struct below changes in a way that `size` cannot express. */
#define FUSEDRNN_ABI_VERSION 1

typedef enum fusedrnn_status {
  FUSEDRNN_OK = 0,
  FUSEDRNN_INVALID_VALUE = 1, /* a wrong shape, range or combination */
  FUSEDRNN_INVALID_TYPE = 2,  /* a wrong element type or device */
  FUSEDRNN_OUT_OF_MEMORY = 3,
  FUSEDRNN_UNAVAILABLE = 4, /* what was asked for cannot run on this machine */
  FUSEDRNN_INTERNAL = 5     /* a defect of the library */
} fusedrnn_status;

typedef enum fusedrnn_cell {
  FUSEDRNN_RNN_TANH = 0,
  FUSEDRNN_RNN_RELU = 1,
  FUSEDRNN_RNN_SIGMOID = 2,
  FUSEDRNN_RNN_IDENTITY = 3,
  FUSEDRNN_GRU = 4,              /* n = tanh(a_n + r * u_n): cuDNN, PyTorch, Keras */
  FUSEDRNN_GRU_RESET_BEFORE = 5, /* n = tanh(a_n + W_hn (r * h) + b_hn): Cho et al. 2014 */
  FUSEDRNN_LSTM = 6
} fusedrnn_cell;

/* What the operands of the matrix products are rounded to. All else is in the type of x, except
 * that BFLOAT16 also rounds the gates that a tape keeps on the CPU, of other cells than
 * FUSEDRNN_GRU_RESET_BEFORE. */
typedef enum fusedrnn_compute {
  FUSEDRNN_COMPUTE_SAME = 0, /* the type of x */
  FUSEDRNN_COMPUTE_BFLOAT16 = 1,
  /* of float32: x, h, weights, and in backward the gates' gradients */
  FUSEDRNN_COMPUTE_INT8 = 2,
  /* of float32, frozen weights only: weights with a scale a row, x and h with a scale a sequence,
   * found at each step. docs/quantisation.md says what the two cost in accuracy. */
  FUSEDRNN_COMPUTE_TFLOAT32 = 3 /* of float32, on CUDA devices only: 10 bits of fraction */
} fusedrnn_compute;

/* Where a call on a CUDA device takes the memory it works in, and what a tape keeps. */
typedef struct fusedrnn_allocator {
  void* context;
  /* Memory of the stream's device, aligned to 256 bytes, for use on `stream`; null where there is
   * none. */
  void* (*allocate)(void* context, size_t bytes, void* stream);
  /* Once all work that used it has been put on `stream`. A tape's is released where the tape is. */
  void (*release)(void* context, void* memory, size_t bytes, void* stream);
} fusedrnn_allocator;

/* What a forward pass must remember for its gradients. Immutable: backward may run any number of
 * times and from several threads. It refers to x, w_ih and w_hh of the forward call, which must
 * stay alive and unchanged until the last backward; everything else, y included, is the tape's own.
 */
typedef struct fusedrnn_tape fusedrnn_tape;

typedef struct fusedrnn_forward_args {
  size_t size;     /* sizeof(fusedrnn_forward_args), so that fields can be added */
  int32_t cell;    /* a fusedrnn_cell */
  int32_t reverse; /* nonzero: from the last valid step of each sequence to the first */
  const DLTensor* x;
  const DLTensor* w_ih;
  const DLTensor* w_hh;
  const DLTensor* b_ih;    /* optional */
  const DLTensor* b_hh;    /* optional */
  const DLTensor* h0;      /* optional */
  const DLTensor* c0;      /* optional, LSTM only */
  const DLTensor* lengths; /* optional */
  const DLTensor* resets;  /* optional */
  DLTensor* y;             /* written */
  DLTensor* h_n;           /* written */
  DLTensor* c_n;           /* written; LSTM only */
  int32_t compute;         /* a fusedrnn_compute, of backward too; a size without it means SAME */
  int32_t reserved;        /* zero */
  void* stream;            /* a cudaStream_t, where x is on a CUDA device; null: the default one */
  const fusedrnn_allocator* allocator; /* optional; a tape keeps a copy of the struct */
} fusedrnn_forward_args;

typedef struct fusedrnn_backward_args {
  size_t size; /* sizeof(fusedrnn_backward_args) */
  const fusedrnn_tape* tape;
  const DLTensor* dy;   /* optional [T,B,H] */
  const DLTensor* dh_n; /* optional [B,H] */
  const DLTensor* dc_n; /* optional [B,H], LSTM only */
  DLTensor* dx;         /* each output is optional and has the shape of its variable */
  DLTensor* dw_ih;
  DLTensor* dw_hh;
  DLTensor* db_ih;
  DLTensor* db_hh;
  DLTensor* dh0;
  DLTensor* dc0;         /* LSTM only */
  int32_t accumulate_dx; /* nonzero: dx += instead of dx =, for the second direction of a layer */
  int32_t reserved;      /* zero */
  void* stream; /* as of fusedrnn_forward_args; the memory comes from the tape's allocator */
} fusedrnn_backward_args;

/* The weights of one layer in one direction, packed once for inference. Immutable: any number of
 * threads may run with them at the same time. They are copies: the weights they were made from may
 * change or be released. */
typedef struct fusedrnn_frozen fusedrnn_frozen;

typedef struct fusedrnn_freeze_args {
  size_t size;     /* sizeof(fusedrnn_freeze_args) */
  int32_t cell;    /* a fusedrnn_cell */
  int32_t compute; /* a fusedrnn_compute */
  const DLTensor* w_ih;
  const DLTensor* w_hh;
  const DLTensor* b_ih; /* optional */
  const DLTensor* b_hh; /* optional */
} fusedrnn_freeze_args;

/* Runs one layer in one direction. With `tape` not null, *tape receives what backward needs
 * (release it with fusedrnn_tape_free); with `tape` null no gates are stored. */
FUSEDRNN_API fusedrnn_status fusedrnn_forward(const fusedrnn_forward_args* args,
                                              fusedrnn_tape** tape);
FUSEDRNN_API fusedrnn_status fusedrnn_backward(const fusedrnn_backward_args* args);
FUSEDRNN_API void fusedrnn_tape_free(fusedrnn_tape* tape);

/* Packs weights; release them with fusedrnn_frozen_free when no call uses them any more. */
FUSEDRNN_API fusedrnn_status fusedrnn_freeze(const fusedrnn_freeze_args* args,
                                             fusedrnn_frozen** frozen);
FUSEDRNN_API void fusedrnn_frozen_free(fusedrnn_frozen* frozen);

/* Inference as fusedrnn_forward. `args->cell` is that of the frozen weights; w_ih, w_hh, b_ih and
 * b_hh are null. */
FUSEDRNN_API fusedrnn_status fusedrnn_frozen_forward(const fusedrnn_frozen* frozen,
                                                     const fusedrnn_forward_args* args);

/* The bytes of memory that a step of `batch` sequences works in, at least 64; 0 where `frozen` is
 * null or `batch` is negative or too large (fusedrnn_last_error() says so). Not for a real-time
 * thread: ask once, before the first step. */
FUSEDRNN_API size_t fusedrnn_frozen_workspace(const fusedrnn_frozen* frozen, int64_t batch);

/* One step on the calling thread, for real-time threads: no memory is allocated, no lock taken, no
 * system call made and no other thread waited for. The time it takes depends on the sizes alone,
 * not on the values: denormal numbers are flushed to zero inside, and the thread's floating-point
 * mode is as before when it returns. The bits are those of the same step of
 * fusedrnn_frozen_forward. (The exception: where AMX multiplies, that is weights of bfloat16 or
 * int8 and 4 sequences or more, a thread's first step enters the kernel, which makes room for the
 * tile registers. Let it be one that is in no hurry.)
 *
 *   x            [batch,I]
 *   prev_states  one address [batch,H] a state: h, and for an LSTM c; null, or a null address: zero
 *   next_states  the same, written; next_states[0] is also the step's output
 *   workspace    fusedrnn_frozen_workspace(frozen, batch) bytes or more, aligned to 64 bytes, of
 *                one call at a time; what it holds before and after means nothing
 *
 * All are dense and row-major, of the weights' dtype and aligned to it. next_states[s] may be
 * prev_states[s]; otherwise what is written shares no memory with anything else here.
 *
 * FUSEDRNN_INVALID_VALUE for a null or misaligned address or a negative batch: nothing has been
 * written then. This is all that is checked, and fusedrnn_last_error() does not change. */
FUSEDRNN_API fusedrnn_status fusedrnn_frozen_step(const fusedrnn_frozen* frozen, int64_t batch,
                                                  const void* x, const void* const* prev_states,
                                                  void* const* next_states, void* workspace);

/* The message of this thread's last failure; "" before the first. Valid until its next call. */
FUSEDRNN_API const char* fusedrnn_last_error(void);

FUSEDRNN_API const char* fusedrnn_version(void);
FUSEDRNN_API int32_t fusedrnn_abi_version(void);

/* The largest number of threads a call may use, the calling one included; 0 where the environment's
 * FUSEDRNN_NUM_THREADS is no such number (fusedrnn_last_error() says so). */
FUSEDRNN_API fusedrnn_status fusedrnn_set_num_threads(int32_t n);
FUSEDRNN_API int32_t fusedrnn_get_num_threads(void);

#ifdef __cplusplus
}
#endif

#endif /* FUSEDRNN_FUSEDRNN_H_ */
