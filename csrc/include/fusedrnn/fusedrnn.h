/* fusedrnn: recurrent cells, forward and backward. The C ABI, over DLPack tensors; fusedrnn.hpp has
 * it for C++17.
 *
 * USE
 *
 *   fusedrnn_network_create    a network from runs: cells over a sequence, in one direction each
 *   ..._describe, _parameter, _state, _gate    what it has, by name and shape
 *   fusedrnn_forward           results; and in a reserve what backward needs
 *   fusedrnn_backward          gradients of x, parameters and states
 *   fusedrnn_freeze            its weights packed, for inference
 *   fusedrnn_frozen_forward, _step             sequences; steps, for real-time threads
 *   fusedrnn_frozen_save, _load, _read         model files
 *
 * A network is a description: it is made once, and serves any number of calls and threads. All
 * memory is the caller's: parameters, states, results, and the reserve, one block of bytes whose
 * size is asked beforehand. Structs of arguments open with their own size; fields that are zero
 * mean what is usual:
 *
 *   const fusedrnn_run run = {.cell = "gru", .writes = 1, .input_size = 40, .hidden_size = 256};
 *   const fusedrnn_network_args args = {
 *       .size = sizeof args, .runs = &run, .num_runs = 1, .dtype = {kDLFloat, 32, 1}};
 *   fusedrnn_network* network = NULL;
 *   if (fusedrnn_network_create(&args, &network) != FUSEDRNN_OK) puts(fusedrnn_last_error());
 *
 * To compile and link: find_package(fusedrnn CONFIG) and fusedrnn::fusedrnn in CMake, or
 * pkg-config fusedrnn. examples/c and examples/cpp are whole programs.
 *
 * LETTERS
 *
 * T time steps, B batch, I input size, H hidden size, P size of h (H, unless the cell has a
 * projection), G gate blocks (RNN 1, GRU 3, LSTM 4). Layouts are row-major with the last axis
 * fastest. Gate order: LSTM i, f, g, o; GRU r, z, n.
 *
 *   x [T,B,input size]   y [T,B,output size]   a state [B,H] or [B,P]
 *   w_ih [G*H,I]   w_hh [G*H,H]   b_ih, b_hh [G*H]
 *   lengths [B], any integer type, 0 <= lengths[b] <= T      mask, resets [T,B], bool or uint8
 *
 * Step t of sequence b exists where t < lengths[b] and mask[t,b]. Where it does not, the state
 * stands still, y is zero or that state (fusedrnn_padding), and nothing is read of x. A reset of a
 * step that exists discards the state that would cross the boundary before it, and the reset state
 * takes its place; any other does nothing.
 *
 * NULL
 *
 * A null pointer for an optional tensor means: biases, states before the first step and reset
 * states zero, every step there, no resets; for an upstream gradient zero; for a tensor to be
 * written "not wanted". Where many tensors are optional, so is the address of their list. Any other
 * null is an error, but that the functions that free take it and do nothing.
 *
 * TENSORS
 *
 * The last axis of every tensor must be dense (stride 1); the other axes may have any stride, and
 * lengths, mask and resets any on every axis. Tensors are of the network's type, in CPU memory or
 * on one CUDA device, aligned to their element; lengths, mask and resets may stay in CPU memory.
 * Elements that are written share no memory with one another or with anything that the call reads,
 * but that a state after the last step may lie exactly where the same state before the first step
 * does, and so may its gradients. A call refers to nothing of the caller's once it has returned (on
 * a CUDA device: once its work on the stream is done).
 *
 * With the 16-bit types products, gate maths and sums are in float32. h is rounded at every step, c
 * only where a call begins and ends, the gates that a reserve keeps as BFLOAT16 says below, each
 * gradient once at its end.
 *
 * ERRORS
 *
 * Functions return a status; on failure nothing has been written and fusedrnn_last_error() says,
 * for the calling thread, which argument was wrong, what was expected and what came. Parameters and
 * states go by their names there, in networks of more than one run with its number: "runs[1].w_ih",
 * "runs[0].dw_ih"; a state before the first step is "h0", after the last one "h_n", and their
 * gradients "dh0" and "dh_n"; that of every step "h" and "dh"; a reset state "reset_h" and
 * "dreset_h". No exception leaves a function.
 *
 * THREADS
 *
 * All functions may be called from many threads at the same time, also with the same network or
 * frozen weights: these are immutable. What is written is one call's at a time: results, reserves
 * of forward calls, workspaces. Before something is freed, every call with it has returned.
 *
 * A call that is worth it runs on threads of the library's own as well, at most
 * fusedrnn_get_num_threads() together with the caller's; results do not depend on how many. They
 * are made where they are first wanted and stay, and a child of fork() makes its own. Since no
 * moment is known at which none of them runs the library's code, it is never unloaded: dlclose()
 * leaves it where it is, and so it does with a plugin that the static library has been linked into
 * as CMake and pkg-config say (-z nodelete, on ELF systems).
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

/* Grows by one whenever a struct below changes in a way that `size` cannot express; the number in
 * the shared library's name (soname). fusedrnn_abi_version() is that of the library in use. */
#define FUSEDRNN_ABI_VERSION 1

typedef enum fusedrnn_status {
  FUSEDRNN_OK = 0,
  FUSEDRNN_INVALID_VALUE = 1, /* a wrong shape, range or combination */
  FUSEDRNN_INVALID_TYPE = 2,  /* a wrong element type or device */
  FUSEDRNN_OUT_OF_MEMORY = 3,
  FUSEDRNN_UNAVAILABLE = 4, /* what was asked for cannot run on this machine */
  FUSEDRNN_INTERNAL = 5,    /* a defect of the library */
  FUSEDRNN_FILE_ERROR = 6   /* a file that cannot be read or written, as the system says */
} fusedrnn_status;

/* What the operands of the matrix products are rounded to. All else is in the type of x, except
 * that BFLOAT16 also rounds the gates that a reserve keeps on the CPU, of other cells than
 * gru_reset_before and those with constants. */
typedef enum fusedrnn_compute {
  /* the type of x */
  FUSEDRNN_COMPUTE_SAME = 0,
  /* of float32: x, h, weights, and in backward the gates' gradients */
  FUSEDRNN_COMPUTE_BFLOAT16 = 1,
  /* of float32, frozen weights only: weights with a scale a row, x and h with a scale a sequence,
   * found at each step. docs/quantisation.md says what the two cost in accuracy. */
  FUSEDRNN_COMPUTE_INT8 = 2,
  /* of float32, on CUDA devices only: 10 bits of fraction */
  FUSEDRNN_COMPUTE_TFLOAT32 = 3
} fusedrnn_compute;

/* What a reserve keeps for backward. Gradients are the same to the bit on the CPU, and on a CUDA
 * device within the rounding of sums in another order. */
typedef enum fusedrnn_memory {
  FUSEDRNN_MEMORY_DEFAULT = 0, /* states and gates of every step */
  /* On the CPU the states of few steps, from which backward takes the others again, some at a time;
   * on a CUDA device all states, from which it computes the gates again. Reserve and backward
   * together need a fraction of the memory. */
  FUSEDRNN_MEMORY_LEAN = 1
} fusedrnn_memory;

/* What y holds of steps that do not exist. */
typedef enum fusedrnn_padding {
  FUSEDRNN_PADDING_ZERO = 0,
  FUSEDRNN_PADDING_LAST = 1 /* the state that stands still there; so gradients of y count there */
} fusedrnn_padding;

/* Where a call on a CUDA device takes the memory it works in. */
typedef struct fusedrnn_allocator {
  void* context;
  /* Memory of the stream's device, aligned to 256 bytes, for use on `stream`; null where there is
   * none. */
  void* (*allocate)(void* context, size_t bytes, void* stream);
  /* Once all work that used it has been put on `stream`. */
  void (*release)(void* context, void* memory, size_t bytes, void* stream);
} fusedrnn_allocator;

/* Activations of the cells with constants, as ONNX defines them; s is the logistic sigmoid. */
typedef enum fusedrnn_activation {
  FUSEDRNN_SIGMOID = 0,
  FUSEDRNN_TANH = 1,
  FUSEDRNN_RELU = 2,
  FUSEDRNN_IDENTITY = 3,
  FUSEDRNN_HARD_SIGMOID = 4,     /* alpha x + beta within 0 and 1; ONNX's defaults are 0.2, 0.5 */
  FUSEDRNN_SOFTSIGN = 5,         /* x / (1 + |x|) */
  FUSEDRNN_SOFTPLUS = 6,         /* log(1 + e^x) */
  FUSEDRNN_LEAKY_RELU = 7,       /* x, below 0 alpha x; 0.01 */
  FUSEDRNN_ELU = 8,              /* x, below 0 alpha (e^x - 1); 1 */
  FUSEDRNN_AFFINE = 9,           /* alpha x + beta */
  FUSEDRNN_SCALED_TANH = 10,     /* alpha tanh(beta x) */
  FUSEDRNN_THRESHOLDED_RELU = 11 /* x, below alpha 0; 1 */
} fusedrnn_activation;

/* One cell over the sequence, in one direction. A row is what lies between runs, [T,B,width]: row 0
 * is x, and each other row is written by one or more runs, side by side. The highest row is y. A
 * stack of L layers in both directions has rows 0 to L; its runs are 2 L, those of row k:
 *
 *   {.cell = cell, .reads = k - 1, .writes = k, .input_size = width of row k - 1, .hidden_size = H}
 *   the same with .reverse = 1, .write_offset = H
 *
 * Runs may read any columns of a row; on a CUDA device, for gradients of the row, all of them.
 */
typedef struct fusedrnn_run {
  /* "rnn_tanh", "rnn_relu", "rnn_sigmoid", "rnn_identity"; "indrnn_relu", "indrnn_tanh"; "gru":
   * n = tanh(a_n + r * u_n), as in cuDNN, PyTorch and Keras; "gru_reset_before": n = tanh(a_n +
   * W_hn (r * h) + b_hn), Cho et al. 2014; "lstm", "lstm_peephole"; "lstm_coupled" and
   * "lstm_coupled_peephole": gates i, g, o and f = 1 - i; "lstm_projection": h = W_hr (o *
   * tanh(c)), P numbers; "mingru_linear", "mingru_positive", gates z, h, and "minlstm_linear",
   * "minlstm_positive", gates f, i, h, without w_hh; "slstm" and "slstm_exp" by their forget gate,
   * gates i, f, z, o; with layer normalisation "lstm_layer_norm", "gru_layer_norm", and
   * "gru_world_model", gates r, n, z. docs/math.md has the equations.
   *
   * With constants: "rnn_general", "gru_general", "gru_reset_before_general", "lstm_general",
   * "lstm_coupled_general", "lstm_projection_general". In these LSTMs w_peephole [3*H] (coupled
   * [2*H]) comes before w_hr and is optional: zeros. Where all constants are the usual ones, the
   * cells above compute the same, and faster. */
  const char* cell;
  int32_t reverse;         /* nonzero: from the last valid step of each sequence to the first */
  int32_t reads;           /* a row that runs before have written, or 0 */
  int32_t writes;          /* the row of the run before or the next one; above the row it reads */
  int32_t num_constants;   /* as many as the cell has, and 0 where `constants` is null */
  int64_t read_offset;     /* the first column that it reads */
  int64_t write_offset;    /* the first column that it writes */
  int64_t input_size;      /* I */
  int64_t hidden_size;     /* H; it writes as many columns, or P */
  int64_t projection_size; /* P of cells with a projection; else 0 */
  /* Blocks along the diagonal of w_hh, a matrix, a divisor of H; 0 is 1. w_hh is [G*H, H/heads]:
   * unit u reads h of the H/heads units of its own block. None in cells with a projection. */
  int64_t heads;
  /* Null: the usual ones, which limit nothing and choose sigmoid for f, tanh for g and h.
   *
   *   rnn_general                   clip; f, alpha, beta
   *   gru_general, gru_reset_...    clip; f, alpha, beta; g, alpha, beta
   *   lstm_..._general              clip, cell_clip, cell_clip_nan; f, ...; g, ...; h, ...
   *
   * clip: what activations of gates are given, peepholes and all, is limited to [-clip, clip];
   * cell_clip: c is limited to [-cell_clip, cell_clip] as soon as it is computed. Both at least
   * 1e-9, or infinity for none. Gradients are zero where a limit was reached. A NaN in c stays one
   * where cell_clip_nan is 0 and becomes cell_clip where it is 1. f, g, h: numbers of
   * fusedrnn_activation with their finite alpha and beta. The activation of an RNN's h is f; r and
   * z of a GRU are f's and n is g's; i, f and o of an LSTM are f's, g is g's, and h = o * h(c). */
  const double* constants;
  /* Noise of this run, which a call draws where it is `training`; docs/math.md, section 9. Rates of
   * dropping are at least 0 and below 1, and what is not dropped is divided by 1 - rate.
   *
   *   weight_dropout      elements of w_hh, a matrix, for a whole call
   *   zoneout_h, _c       0 to 1: each unit of h, of the other states, is with this probability
   *                       after a step what it was before; without training it is the share of what
   *                       it was before in what it is after, in backward and frozen too
   *   candidate_dropout   of gru_..._general and lstm_..._general: units of n or g where they are
   *                       added to the state, at each step others
   *   recurrent_dropout   units of h where w_hh, a matrix, multiplies it, the same at all steps; of
   *                       r * h in gru_reset_before too */
  double weight_dropout;
  double zoneout_h, zoneout_c;
  double candidate_dropout;
  double recurrent_dropout;
} fusedrnn_run;

typedef struct fusedrnn_network fusedrnn_network; /* immutable */

typedef struct fusedrnn_network_args {
  size_t size; /* sizeof(fusedrnn_network_args), so that fields can be added */
  const fusedrnn_run* runs;
  int32_t num_runs;
  int32_t compute; /* a fusedrnn_compute */
  /* float32, float64, bfloat16 (kDLBfloat, 16) or float16 (kDLFloat, 16). Or complex64 or
   * complex128: dual numbers of float32 or float64 in every array of numbers, the real part a
   * value, and the imaginary part its derivative along a direction that x, parameters and states
   * give with theirs. The imaginary parts of results are their derivatives along it (forward mode),
   * those of gradients the product of second derivatives and the direction. */
  DLDataType dtype;
  int32_t memory; /* a fusedrnn_memory; frozen weights keep nothing and do not look at it */
} fusedrnn_network_args;

FUSEDRNN_API fusedrnn_status fusedrnn_network_create(const fusedrnn_network_args* args,
                                                     fusedrnn_network** network);
/* When no call uses it any more; null: nothing is done. */
FUSEDRNN_API void fusedrnn_network_free(fusedrnn_network* network);

typedef struct fusedrnn_network_info {
  int32_t num_runs, num_parameters, num_states;
  int64_t input_size, output_size; /* the last axes of x and y */
  DLDataType dtype;
  int32_t compute; /* a fusedrnn_compute */
} fusedrnn_network_info;

/* A parameter or a state. Both are counted run by run, and within a run in the order of its cell:
 * of all cells so far w_ih, w_hh, b_ih, b_hh, those that it has, and h, then c of an LSTM, then n
 * and m of an sLSTM. */
typedef struct fusedrnn_array_info {
  const char* name; /* "w_ih", "h", ...; valid for as long as the library is */
  int32_t run;
  int32_t optional;
  int32_t ndim;
  int64_t shape[2]; /* of a state without its first axis B */
} fusedrnn_array_info;

FUSEDRNN_API fusedrnn_status fusedrnn_network_describe(const fusedrnn_network* network,
                                                       fusedrnn_network_info* info);
FUSEDRNN_API fusedrnn_status fusedrnn_network_parameter(const fusedrnn_network* network,
                                                        int32_t index, fusedrnn_array_info* info);
FUSEDRNN_API fusedrnn_status fusedrnn_network_state(const fusedrnn_network* network, int32_t index,
                                                    fusedrnn_array_info* info);

/* Bytes, never 0, that a forward call on this device leaves for its backward. The reserve may be
 * copied, saved and loaded in between. On the CPU it is aligned to 16 bytes, opens with a header
 * that says of which network and sizes it is (any other is an error), and serves any process that
 * runs the same instruction set. On a CUDA device it is aligned to 256 bytes and used in the order
 * of the streams; there its size alone is checked. */
FUSEDRNN_API fusedrnn_status fusedrnn_reserve_bytes(const fusedrnn_network* network,
                                                    DLDevice device, int64_t steps, int64_t batch,
                                                    size_t* bytes);

typedef struct fusedrnn_forward_args {
  size_t size; /* sizeof(fusedrnn_forward_args) */
  const fusedrnn_network* network;
  const DLTensor* x;
  const DLTensor* const* parameters; /* num_parameters */
  const DLTensor* const* states;     /* optional: num_states before the first step, each optional */
  const DLTensor* lengths;           /* optional */
  const DLTensor* mask;              /* optional */
  const DLTensor* resets;            /* optional */
  /* optional: num_states vectors [H] or [P], each optional: what takes the place of a state that a
   * reset discards */
  const DLTensor* const* reset_states;
  int32_t padding; /* a fusedrnn_padding */
  /* Nonzero: the noise of the runs is drawn, by dropout_seed and dropout_step; 0: there is what is
   * expected of it. 0 with frozen weights. */
  int32_t training;
  DLTensor* y;               /* written */
  DLTensor* const* states_n; /* written: after the last valid step; optional, as each of them */
  /* written: num_states of every step, [T,B,H] or [T,B,P], zero or standing still where a step does
   * not exist, as y; optional, as each of them */
  DLTensor* const* state_sequences;
  void* reserve;        /* written; null: inference, nothing is kept */
  size_t reserve_bytes; /* what fusedrnn_reserve_bytes() says; 0 without one */
  void* stream;         /* a cudaStream_t, where x is on a CUDA device; null: the default one */
  const fusedrnn_allocator* allocator; /* optional, on a CUDA device */
  /* Elements of each row between runs (not of x or y) are zero with this probability, and the
   * others divided by 1 - dropout, with or without a reserve; 0 <= dropout < 1, and 0 with frozen
   * weights. One seed drops the same elements on every device and with any number of threads; take
   * another for each call. docs/math.md says which they are. */
  double dropout;
  uint64_t dropout_seed; /* not looked at where dropout and training are 0, nor is the step;
                          * captured in a CUDA graph, it is that of each run of the graph */
  /* What step 0 counts as, at least 0: calls over parts of a sequence, with one seed, drop what one
   * call over all of it does. */
  int64_t dropout_step;
} fusedrnn_forward_args;

typedef struct fusedrnn_backward_args {
  size_t size; /* sizeof(fusedrnn_backward_args) */
  /* As of the forward call, whose values must not have changed. Of lengths, mask and resets nothing
   * is looked at but whether they were given: what they said stands in the reserve. The exception
   * are lengths in host memory with x on a CUDA device, which are read again: they say how many
   * rows there are in the reserve. */
  const fusedrnn_network* network;
  const DLTensor* x;
  const DLTensor* const* parameters;
  const DLTensor* lengths;
  const DLTensor* mask;
  const DLTensor* resets;
  const void* reserve; /* only read: backward may run again, and from many threads */
  size_t reserve_bytes;
  const DLTensor* dy; /* optional, as each of these; in the shapes of their variables */
  const DLTensor* const* dstates_n;
  const DLTensor* const* dstate_sequences;
  DLTensor* dx;                   /* written */
  DLTensor* const* dparameters;   /* written */
  DLTensor* const* dstates;       /* written: of the states before the first step */
  DLTensor* const* dreset_states; /* written */
  /* written: [num_states,T], float64: of the gradient of each state that leaves each step, the
   * Euclidean norm over sequences and elements, after clip_dh */
  DLTensor* flow;
  /* 0: none. Else, at least 1e-30, each element of the gradient of h that leaves a step is limited
   * to [-clip_dh, clip_dh] before it goes on (Graves 2013, "Generating sequences with recurrent
   * neural networks", section 2.1): what is returned is no gradient of anything then. */
  double clip_dh;
  void* stream;
  const fusedrnn_allocator* allocator;
  /* Those of the forward call. On the CPU the reserve knows them, and others are an error; on a
   * CUDA device others give wrong gradients. */
  double dropout;
  uint64_t dropout_seed;
  int64_t dropout_step;
  int32_t training;
  int32_t reserved; /* zero */
} fusedrnn_backward_args;

FUSEDRNN_API fusedrnn_status fusedrnn_forward(const fusedrnn_forward_args* args);
/* The gradients of sum(dy * y) + sum(dstates_n * states_n) + sum(dstate_sequences *
 * state_sequences). */
FUSEDRNN_API fusedrnn_status fusedrnn_backward(const fusedrnn_backward_args* args);

/* The name of a gate of a run's cell: "i", "f", "g" and "o", or "r", "z" and "n", in their order.
 * Null for an index beyond the last (a plain RNN has none), a run that is not there, or no network.
 * Valid for as long as the library is. */
FUSEDRNN_API const char* fusedrnn_network_gate(const fusedrnn_network* network, int32_t run,
                                               int32_t index);

typedef struct fusedrnn_gates_args {
  size_t size; /* sizeof(fusedrnn_gates_args) */
  const fusedrnn_network* network;
  int32_t run;
  int32_t masked; /* nonzero where lengths, mask or resets were given to the forward call */
  const void* reserve;
  size_t reserve_bytes;
  DLTensor* gates; /* [T,B,number of gates * H], written: side by side, in their order */
  void* stream;    /* as of the other calls */
} fusedrnn_gates_args;

/* For looking inside: the gates of a run as they were at every step of the forward call that left
 * the reserve, after their sigmoid or tanh; zero where a step does not exist. Where a reserve keeps
 * them rounded, they are. */
FUSEDRNN_API fusedrnn_status fusedrnn_reserve_gates(const fusedrnn_gates_args* args);

/* A network with its weights packed for inference on the CPU. Immutable: any number of threads may
 * run with it at the same time. The weights are copies: what they were made from may change or be
 * released, the network too. Release it with fusedrnn_frozen_free when no call uses it any more. */
typedef struct fusedrnn_frozen fusedrnn_frozen;

FUSEDRNN_API fusedrnn_status fusedrnn_freeze(const fusedrnn_network* network,
                                             const DLTensor* const* parameters,
                                             fusedrnn_frozen** frozen);
FUSEDRNN_API void fusedrnn_frozen_free(fusedrnn_frozen* frozen);

/* The network that was frozen. It belongs to `frozen`: valid for as long, and not to be freed. Null
 * where `frozen` is. */
FUSEDRNN_API const fusedrnn_network* fusedrnn_frozen_network(const fusedrnn_frozen* frozen);

/* A model file holds a network and its frozen weights, rounded as they are multiplied; it is read
 * on any machine, and there packed for its instruction set. On one machine a loaded network
 * computes the bits of the one that was saved. Python's frozen.save and load_frozen read and write
 * the same files; docs/model_file.md has the format.
 *
 * save: `path` is a file or nothing (of symbolic links what they lead to). Either the whole new
 * file is there afterwards or what was there before. load, and read from memory: what is no such
 * file, of another version, cut short or changed is an error, FUSEDRNN_INVALID_VALUE, and takes no
 * more memory than what a network of its size does. */
FUSEDRNN_API fusedrnn_status fusedrnn_frozen_save(const fusedrnn_frozen* frozen, const char* path);
FUSEDRNN_API fusedrnn_status fusedrnn_frozen_load(const char* path, fusedrnn_frozen** frozen);
FUSEDRNN_API fusedrnn_status fusedrnn_frozen_read(const void* bytes, size_t size,
                                                  fusedrnn_frozen** frozen);

/* Inference as fusedrnn_forward; `network`, `parameters` and `reserve` are null. */
FUSEDRNN_API fusedrnn_status fusedrnn_frozen_forward(const fusedrnn_frozen* frozen,
                                                     const fusedrnn_forward_args* args);

/* The bytes of memory that a step of `batch` sequences works in, at least 64; 0 where `frozen` is
 * null or no plain stack of layers in the forward direction, or `batch` is negative or too large
 * (fusedrnn_last_error() says so). Not for a real-time thread: ask once, before the first step. */
FUSEDRNN_API size_t fusedrnn_frozen_workspace(const fusedrnn_frozen* frozen, int64_t batch);

/* One step of all layers on the calling thread, for real-time threads: no memory is allocated, no
 * lock taken, no system call made and no other thread waited for. The time it takes depends on the
 * sizes alone, not on the values: denormal numbers are flushed to zero inside, and the thread's
 * floating-point mode is as before when it returns. The bits are those of fusedrnn_frozen_forward
 * with T = 1; so they are those of a longer call too, but that c of the 16-bit types is rounded
 * between calls and not between the steps of one. (The exception: where AMX multiplies, that is
 * weights of bfloat16 or int8, and 4 sequences or a layer of half a megabyte of them or more, a
 * thread's first step enters the kernel, which makes room for the tile registers. Let it be one
 * that is in no hurry.)
 *
 *   x            [batch,input size]
 *   prev_states  num_states addresses [batch,H]; null, or a null address: zero
 *   next_states  the same, written; the last layer's h is also the step's output
 *   workspace    fusedrnn_frozen_workspace(frozen, batch) bytes or more, aligned to 64 bytes, of
 *                one call at a time; what it holds before and after means nothing
 *
 * All are dense and row-major, of the weights' dtype and aligned to it. next_states[s] may be
 * prev_states[s]; otherwise what is written shares no memory with anything else here.
 *
 * FUSEDRNN_INVALID_VALUE for a null or misaligned address, a negative batch, or a network that
 * takes no steps, as a literal in fusedrnn_last_error() says: nothing has been written then. This
 * is all that is checked. */
FUSEDRNN_API fusedrnn_status fusedrnn_frozen_step(const fusedrnn_frozen* frozen, int64_t batch,
                                                  const void* x, const void* const* prev_states,
                                                  void* const* next_states, void* workspace);

/* The message of this thread's last failure; "" before the first. Valid until its next call. */
FUSEDRNN_API const char* fusedrnn_last_error(void);

FUSEDRNN_API const char* fusedrnn_version(void);
FUSEDRNN_API int32_t fusedrnn_abi_version(void);

/* The largest number of threads that calls, on any thread, may use from now on, the calling one
 * included: 1 to 1024. get returns 0 where nothing was set and the environment's
 * FUSEDRNN_NUM_THREADS is no such number (fusedrnn_last_error() says so). */
FUSEDRNN_API fusedrnn_status fusedrnn_set_num_threads(int32_t n);
FUSEDRNN_API int32_t fusedrnn_get_num_threads(void);

/* Gives the CPU memory that the library keeps for its next calls back to the system: scratch, and
 * in Python results and reserves that were released. Returns how many bytes. What is in use stays,
 * and later calls keep memory again. */
FUSEDRNN_API size_t fusedrnn_release_memory(void);

#ifdef __cplusplus
}
#endif

#endif /* FUSEDRNN_FUSEDRNN_H_ */
