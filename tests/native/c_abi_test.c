/* The C ABI from C11: gradients against central differences, messages, empty problems, lifetimes.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fusedrnn/fusedrnn.h"

static int failures = 0;

#define CHECK(condition)                                              \
  do {                                                                \
    if (!(condition)) {                                               \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
      ++failures;                                                     \
    }                                                                 \
  } while (0)

enum { T = 4, B = 3, I = 2, H = 3, MAX_ROWS = 4 * H };

/* A dense tensor of doubles with room for any variable here. */
typedef struct {
  double values[T * B * MAX_ROWS];
  int64_t shape[3];
  int64_t count;
  DLTensor tensor;
} Variable;

static void make(Variable* v, int ndim, int64_t a, int64_t b, int64_t c) {
  static unsigned state = 1;
  v->shape[0] = a;
  v->shape[1] = b;
  v->shape[2] = c;
  v->count = 1;
  for (int i = 0; i < ndim; ++i) v->count *= v->shape[i];
  for (int64_t i = 0; i < v->count; ++i) {
    state = state * 1664525u + 1013904223u;
    v->values[i] = (double)(state >> 8) / (1 << 23) - 1;
  }
  v->tensor = (DLTensor){.data = v->values,
                         .device = {kDLCPU, 0},
                         .ndim = ndim,
                         .dtype = {kDLFloat, 64, 1},
                         .shape = v->shape};
}

enum { X, W_IH, W_HH, B_IH, B_HH, H0, C0, INPUTS };
enum { Y, H_N, C_N, OUTPUTS };

typedef struct {
  Variable in[INPUTS], out[OUTPUTS], dout[OUTPUTS], din[INPUTS];
  int32_t lengths[B];
  uint8_t resets[T * B];
  int64_t lengths_shape[1], resets_shape[2];
  DLTensor lengths_tensor, resets_tensor;
  fusedrnn_forward_args forward;
  fusedrnn_backward_args backward;
} Problem;

static void set_up(Problem* p, fusedrnn_cell cell, int32_t reverse) {
  memset(p, 0, sizeof *p);
  const int is_lstm = cell == FUSEDRNN_LSTM;
  const int64_t rows = (is_lstm ? 4 : 3) * H;
  Variable* const inputs[] = {p->in, p->din};
  for (int i = 0; i < 2; ++i) {
    make(&inputs[i][X], 3, T, B, I);
    make(&inputs[i][W_IH], 2, rows, I, 1);
    make(&inputs[i][W_HH], 2, rows, H, 1);
    make(&inputs[i][B_IH], 1, rows, 1, 1);
    make(&inputs[i][B_HH], 1, rows, 1, 1);
    make(&inputs[i][H0], 2, B, H, 1);
    make(&inputs[i][C0], 2, B, H, 1);
  }
  Variable* const outputs[] = {p->out, p->dout};
  for (int i = 0; i < 2; ++i) {
    make(&outputs[i][Y], 3, T, B, H);
    make(&outputs[i][H_N], 2, B, H, 1);
    make(&outputs[i][C_N], 2, B, H, 1);
  }
  p->lengths[0] = T;
  p->lengths[1] = 0;
  p->lengths[2] = T - 1;
  p->resets[2 * B] = 1;
  p->lengths_shape[0] = p->resets_shape[1] = B;
  p->resets_shape[0] = T;
  p->lengths_tensor = (DLTensor){.data = p->lengths,
                                 .device = {kDLCPU, 0},
                                 .ndim = 1,
                                 .dtype = {kDLInt, 32, 1},
                                 .shape = p->lengths_shape};
  p->resets_tensor = (DLTensor){.data = p->resets,
                                .device = {kDLCPU, 0},
                                .ndim = 2,
                                .dtype = {kDLBool, 8, 1},
                                .shape = p->resets_shape};
  p->forward = (fusedrnn_forward_args){.size = sizeof(fusedrnn_forward_args),
                                       .cell = cell,
                                       .reverse = reverse,
                                       .x = &p->in[X].tensor,
                                       .w_ih = &p->in[W_IH].tensor,
                                       .w_hh = &p->in[W_HH].tensor,
                                       .b_ih = &p->in[B_IH].tensor,
                                       .b_hh = &p->in[B_HH].tensor,
                                       .h0 = &p->in[H0].tensor,
                                       .c0 = is_lstm ? &p->in[C0].tensor : NULL,
                                       .lengths = &p->lengths_tensor,
                                       .resets = &p->resets_tensor,
                                       .y = &p->out[Y].tensor,
                                       .h_n = &p->out[H_N].tensor,
                                       .c_n = is_lstm ? &p->out[C_N].tensor : NULL};
  p->backward = (fusedrnn_backward_args){.size = sizeof(fusedrnn_backward_args),
                                         .dy = &p->dout[Y].tensor,
                                         .dh_n = &p->dout[H_N].tensor,
                                         .dc_n = is_lstm ? &p->dout[C_N].tensor : NULL,
                                         .dx = &p->din[X].tensor,
                                         .dw_ih = &p->din[W_IH].tensor,
                                         .dw_hh = &p->din[W_HH].tensor,
                                         .db_ih = &p->din[B_IH].tensor,
                                         .db_hh = &p->din[B_HH].tensor,
                                         .dh0 = &p->din[H0].tensor,
                                         .dc0 = is_lstm ? &p->din[C0].tensor : NULL};
}

/* sum(y * dy) + sum(h_n * dh_n) + sum(c_n * dc_n), whose gradients backward gives. */
static double loss(Problem* p) {
  CHECK(fusedrnn_forward(&p->forward, NULL) == FUSEDRNN_OK);
  double sum = 0;
  for (int k = 0; k < (p->forward.c_n ? 3 : 2); ++k) {
    for (int64_t i = 0; i < p->out[k].count; ++i) sum += p->out[k].values[i] * p->dout[k].values[i];
  }
  return sum;
}

static void test_gradients(Problem* p) {
  fusedrnn_tape* tape = NULL;
  CHECK(fusedrnn_forward(&p->forward, &tape) == FUSEDRNN_OK);
  CHECK(tape != NULL);
  /* The outputs are the caller's: the tape does not look at them again. */
  for (int k = 0; k < OUTPUTS; ++k) memset(p->out[k].values, 0xff, sizeof p->out[k].values);
  p->backward.tape = tape;
  CHECK(fusedrnn_backward(&p->backward) == FUSEDRNN_OK);

  const double step = 1e-5;
  for (int k = 0; k < (p->forward.c0 ? INPUTS : C0); ++k) {
    for (int64_t i = 0; i < p->in[k].count; ++i) {
      double* value = &p->in[k].values[i];
      const double before = *value;
      *value = before + step;
      const double above = loss(p);
      *value = before - step;
      const double below = loss(p);
      *value = before;
      CHECK(fabs((above - below) / (2 * step) - p->din[k].values[i]) < 1e-8);
    }
  }

  /* A tape may be used again, for some of the gradients, and dx may be added to. */
  double dx[T * B * I];
  memcpy(dx, p->din[X].values, sizeof dx);
  fusedrnn_backward_args again = {.size = sizeof again,
                                  .tape = tape,
                                  .dy = p->backward.dy,
                                  .dh_n = p->backward.dh_n,
                                  .dc_n = p->backward.dc_n,
                                  .dx = p->backward.dx,
                                  .accumulate_dx = 1};
  CHECK(fusedrnn_backward(&again) == FUSEDRNN_OK);
  for (int64_t i = 0; i < T * B * I; ++i) CHECK(fabs(p->din[X].values[i] - 2 * dx[i]) < 1e-12);
  fusedrnn_tape_free(tape);
}

static void test_no_steps(Problem* p) {
  p->in[X].shape[0] = p->out[Y].shape[0] = p->dout[Y].shape[0] = p->din[X].shape[0] = 0;
  p->resets_shape[0] = 0;
  memset(p->lengths, 0, sizeof p->lengths);
  fusedrnn_tape* tape = NULL;
  CHECK(fusedrnn_forward(&p->forward, &tape) == FUSEDRNN_OK);
  CHECK(memcmp(p->out[H_N].values, p->in[H0].values, sizeof(double) * B * H) == 0);
  p->backward.tape = tape;
  CHECK(fusedrnn_backward(&p->backward) == FUSEDRNN_OK);
  CHECK(memcmp(p->din[H0].values, p->dout[H_N].values, sizeof(double) * B * H) == 0);
  for (int k = W_IH; k <= B_HH; ++k) {
    for (int64_t i = 0; i < p->din[k].count; ++i) CHECK(p->din[k].values[i] == 0);
  }
  fusedrnn_tape_free(tape);
}

/* Two bytes an element: the same walk over empty problems, bytes passed on as they are. */
static void test_no_steps_in_16_bits(fusedrnn_cell cell, DLDataType dtype) {
  Problem* p = malloc(sizeof *p);
  if (p == NULL) exit(1);
  set_up(p, cell, 0);
  Variable* const groups[] = {p->in, p->out, p->dout, p->din};
  const int counts[] = {INPUTS, OUTPUTS, OUTPUTS, INPUTS};
  for (int i = 0; i < 4; ++i) {
    for (int k = 0; k < counts[i]; ++k) groups[i][k].tensor.dtype = dtype;
  }
  p->in[X].shape[0] = p->out[Y].shape[0] = p->dout[Y].shape[0] = p->din[X].shape[0] = 0;
  p->resets_shape[0] = 0;
  memset(p->lengths, 0, sizeof p->lengths);
  const size_t bytes = 2 * B * H;
  double behind[INPUTS];
  for (int k = 0; k < INPUTS; ++k) {
    behind[k] = p->din[k].values[(p->din[k].count + 3) / 4];
  }
  fusedrnn_tape* tape = NULL;
  CHECK(fusedrnn_forward(&p->forward, &tape) == FUSEDRNN_OK);
  CHECK(memcmp(p->out[H_N].values, p->in[H0].values, bytes) == 0);
  p->backward.tape = tape;
  CHECK(fusedrnn_backward(&p->backward) == FUSEDRNN_OK);
  CHECK(memcmp(p->din[H0].values, p->dout[H_N].values, bytes) == 0);
  for (int k = W_IH; k <= B_HH; ++k) {
    const uint16_t* values = (const uint16_t*)p->din[k].values;
    for (int64_t i = 0; i < p->din[k].count; ++i) CHECK(values[i] == 0);
    CHECK(p->din[k].values[(p->din[k].count + 3) / 4] == behind[k]);
  }
  fusedrnn_tape_free(tape);
  free(p);
}

static void expect(fusedrnn_status got, fusedrnn_status status, const char* message) {
  CHECK(got == status);
  if (strcmp(fusedrnn_last_error(), message) != 0) {
    fprintf(stderr, "expected \"%s\"\n     got \"%s\"\n", message, fusedrnn_last_error());
    ++failures;
  }
}

static void test_messages(Problem* p) {
  fusedrnn_tape* tape = NULL;
  fusedrnn_forward_args args = p->forward;
  expect(fusedrnn_forward(NULL, &tape), FUSEDRNN_INVALID_VALUE,
         "args: expected an address, got null");
  args.size = 8;
  CHECK(fusedrnn_forward(&args, &tape) == FUSEDRNN_INVALID_VALUE);
  CHECK(strncmp(fusedrnn_last_error(), "fusedrnn_forward_args: expected size = ", 39) == 0);

  args = p->forward;
  args.cell = 99;
  expect(fusedrnn_forward(&args, &tape), FUSEDRNN_INVALID_VALUE,
         "cell: expected a fusedrnn_cell, got 99");

  args = p->forward;
  args.y = NULL;
  expect(fusedrnn_forward(&args, &tape), FUSEDRNN_INVALID_VALUE, "y: expected an array, got none");

  args = p->forward;
  args.w_hh = args.w_ih;
  expect(fusedrnn_forward(&args, &tape), FUSEDRNN_INVALID_VALUE,
         "w_hh: expected shape (12, 3), got (12, 2)");

  int64_t strides[] = {1, T * B, T};
  p->in[X].tensor.strides = strides;
  expect(fusedrnn_forward(&p->forward, &tape), FUSEDRNN_INVALID_VALUE,
         "x: expected a last axis of stride 1, got stride 4");
  p->in[X].tensor.strides = NULL;

  p->in[X].tensor.byte_offset = 4;
  expect(fusedrnn_forward(&p->forward, &tape), FUSEDRNN_INVALID_VALUE,
         "x: expected memory aligned to 8 bytes, got a misaligned address");
  p->in[X].tensor.byte_offset = 0;

  p->in[X].tensor.device.device_type = kDLCUDA;
  expect(fusedrnn_forward(&p->forward, &tape), FUSEDRNN_INVALID_TYPE,
         "w_ih: expected an array on cuda:0 (the device of x), got one on the CPU");
  p->in[X].tensor.device.device_type = kDLMetal;
  expect(fusedrnn_forward(&p->forward, &tape), FUSEDRNN_INVALID_TYPE,
         "x: expected an array on the CPU or a CUDA device, got one on metal:0");
  p->in[X].tensor.device.device_type = kDLCPU;
  p->in[W_HH].tensor.device.device_type = kDLCUDA;
  expect(fusedrnn_forward(&p->forward, &tape), FUSEDRNN_INVALID_TYPE,
         "w_hh: expected an array on the CPU (the device of x), got one on cuda:0");
  p->in[W_HH].tensor.device.device_type = kDLCPU;

  p->in[X].tensor.dtype.lanes = 2;
  expect(fusedrnn_forward(&p->forward, &tape), FUSEDRNN_INVALID_TYPE,
         "x: expected dtype float32, float64, bfloat16 or float16, got float64 with 2 lanes");
  p->in[X].tensor.dtype.lanes = 1;

  p->lengths[1] = T + 1;
  expect(fusedrnn_forward(&p->forward, &tape), FUSEDRNN_INVALID_VALUE,
         "lengths: expected values from 0 to T = 4, got 5 at index 1");
  p->lengths[1] = 0;

  int64_t overlapping[] = {0, H, 1};
  p->out[Y].tensor.strides = overlapping;
  expect(fusedrnn_forward(&p->forward, &tape), FUSEDRNN_INVALID_VALUE,
         "y: expected rows that do not overlap, got strides that make them overlap");
  p->out[Y].tensor.strides = NULL;
  CHECK(tape == NULL);

  expect(fusedrnn_backward(&p->backward), FUSEDRNN_INVALID_VALUE,
         "tape: expected an address, got null");
  CHECK(fusedrnn_forward(&p->forward, &tape) == FUSEDRNN_OK);
  fusedrnn_backward_args backward = p->backward;
  backward.tape = tape;
  backward.dx = NULL;
  backward.accumulate_dx = 1;
  expect(fusedrnn_backward(&backward), FUSEDRNN_INVALID_VALUE,
         "dx: expected an array to accumulate into, got none");
  backward.accumulate_dx = 0;
  backward.dw_hh = backward.dw_ih;
  expect(fusedrnn_backward(&backward), FUSEDRNN_INVALID_VALUE,
         "dw_hh: expected shape (12, 3), got (12, 2)");
  fusedrnn_tape_free(tape);
}

static void test_compute(Problem* p) {
  fusedrnn_forward_args args = p->forward;
  args.compute = FUSEDRNN_COMPUTE_BFLOAT16;
  expect(fusedrnn_forward(&args, NULL), FUSEDRNN_INVALID_VALUE,
         "compute: expected FUSEDRNN_COMPUTE_SAME with arrays of float64, got "
         "FUSEDRNN_COMPUTE_BFLOAT16");
  args.compute = 7;
  expect(fusedrnn_forward(&args, NULL), FUSEDRNN_INVALID_VALUE,
         "compute: expected a fusedrnn_compute, got 7");
  /* Callers from before the field: what lies behind their struct is not read. */
  args.size = offsetof(fusedrnn_forward_args, compute);
  CHECK(fusedrnn_forward(&args, NULL) == FUSEDRNN_OK);
}

/* stream, allocator, and what must be zero until it has a meaning. */
static void test_fields_of_devices(Problem* p) {
  fusedrnn_forward_args args = p->forward;
  args.reserved = 1;
  expect(fusedrnn_forward(&args, NULL), FUSEDRNN_INVALID_VALUE, "reserved: expected 0, got 1");
  args.reserved = 0;
  args.stream = &args;
  expect(fusedrnn_forward(&args, NULL), FUSEDRNN_INVALID_VALUE,
         "stream: expected null with arrays on the CPU, got a stream");
  args.stream = NULL;
  const fusedrnn_allocator allocator = {0};
  args.allocator = &allocator;
  expect(fusedrnn_forward(&args, NULL), FUSEDRNN_INVALID_VALUE,
         "allocator: expected null with arrays on the CPU, got an allocator");
  /* Callers from before the fields, where `reserved` was padding. */
  args.reserved = -1;
  args.size = offsetof(fusedrnn_forward_args, stream);
  fusedrnn_tape* tape = NULL;
  CHECK(fusedrnn_forward(&args, &tape) == FUSEDRNN_OK);

  fusedrnn_backward_args backward = p->backward;
  backward.tape = tape;
  backward.reserved = 2;
  expect(fusedrnn_backward(&backward), FUSEDRNN_INVALID_VALUE, "reserved: expected 0, got 2");
  backward.reserved = 0;
  backward.stream = &backward;
  expect(fusedrnn_backward(&backward), FUSEDRNN_INVALID_VALUE,
         "stream: expected null with arrays on the CPU, got a stream");
  backward.reserved = -1;
  backward.size = offsetof(fusedrnn_backward_args, stream);
  CHECK(fusedrnn_backward(&backward) == FUSEDRNN_OK);
  fusedrnn_tape_free(tape);
}

static void test_library(void) {
  CHECK(strcmp(fusedrnn_version(), FUSEDRNN_VERSION) == 0);
  CHECK(fusedrnn_abi_version() == FUSEDRNN_ABI_VERSION);
  CHECK(fusedrnn_set_num_threads(2) == FUSEDRNN_OK);
  CHECK(fusedrnn_get_num_threads() == 2);
  CHECK(fusedrnn_set_num_threads(0) == FUSEDRNN_INVALID_VALUE);
  CHECK(fusedrnn_get_num_threads() == 2);
  fusedrnn_tape_free(NULL);
}

/* Whether the instruction set that FUSEDRNN_ISA names, where it names one, runs on this machine. */
static int can_run(Problem* p) {
  set_up(p, FUSEDRNN_LSTM, 0);
  if (fusedrnn_forward(&p->forward, NULL) != FUSEDRNN_UNAVAILABLE) return 1;
  puts(fusedrnn_last_error());
  return 0;
}

int main(void) {
  Problem* p = malloc(sizeof *p);
  if (p == NULL) return 1;
  CHECK(strcmp(fusedrnn_last_error(), "") == 0);
  if (!can_run(p)) {
    free(p);
    return 77; /* what ctest takes for "not on this machine" */
  }
  test_library();
  const fusedrnn_cell cells[] = {FUSEDRNN_LSTM, FUSEDRNN_GRU, FUSEDRNN_GRU_RESET_BEFORE};
  for (int i = 0; i < 3; ++i) {
    for (int32_t reverse = 0; reverse < 2; ++reverse) {
      set_up(p, cells[i], reverse);
      test_gradients(p);
      set_up(p, cells[i], reverse);
      test_no_steps(p);
    }
  }
  set_up(p, FUSEDRNN_LSTM, 0);
  test_messages(p);
  set_up(p, FUSEDRNN_LSTM, 0);
  test_compute(p);
  set_up(p, FUSEDRNN_LSTM, 0);
  test_fields_of_devices(p);
  test_no_steps_in_16_bits(FUSEDRNN_LSTM, (DLDataType){kDLBfloat, 16, 1});
  test_no_steps_in_16_bits(FUSEDRNN_GRU, (DLDataType){kDLFloat, 16, 1});
  free(p);
  if (failures > 0) fprintf(stderr, "%d failures\n", failures);
  return failures > 0;
}
