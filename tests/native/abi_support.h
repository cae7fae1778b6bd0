/* What the C ABI's tests share: checks, arrays among bytes that nobody may write, and a network
 * with all the arrays of its calls, of which the network's own description says the sizes. */
#ifndef FUSEDRNN_TESTS_ABI_SUPPORT_H_
#define FUSEDRNN_TESTS_ABI_SUPPORT_H_

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fusedrnn/fusedrnn.h"

/* --- checks --- */

static int failures = 0;

/* What was being tested: printed beside a failure. */
static char context[256] = "";

#define CHECK(condition)                                                            \
  do {                                                                              \
    if (!(condition)) {                                                             \
      fprintf(stderr, "%s:%d: [%s] %s\n", __FILE__, __LINE__, context, #condition); \
      ++failures;                                                                   \
    }                                                                               \
  } while (0)

static inline void expect_at(int line, fusedrnn_status got, fusedrnn_status status,
                             const char* message) {
  const char* const said = got == FUSEDRNN_OK ? "(no error)" : fusedrnn_last_error();
  if (got == status && strcmp(said, message) == 0) return;
  fprintf(stderr, "line %d: [%s] expected status %d \"%s\"\n     got status %d \"%s\"\n", line,
          context, (int)status, message, (int)got, said);
  ++failures;
}
/* A failed call: its status, and the whole of its message. */
#define EXPECT(got, status, message) expect_at(__LINE__, got, status, message)
#define EXPECT_VALUE_ERROR(got, message) EXPECT(got, FUSEDRNN_INVALID_VALUE, message)

static inline void* allocate(size_t bytes) {
  void* const memory = malloc(bytes > 0 ? bytes : 1);
  if (memory == NULL) {
    fputs("no memory for a test\n", stderr);
    exit(1);
  }
  return memory;
}

/* --- types --- */

typedef struct {
  const char* name;
  DLDataType type;
  int32_t compute;
  double epsilon; /* of what is computed in, roughly */
} Format;

static const Format kFormats[] = {
    {"float32", {kDLFloat, 32, 1}, FUSEDRNN_COMPUTE_SAME, 1e-6},
    {"float64", {kDLFloat, 64, 1}, FUSEDRNN_COMPUTE_SAME, 1e-14},
    {"bfloat16", {kDLBfloat, 16, 1}, FUSEDRNN_COMPUTE_SAME, 1e-2},
    {"float16", {kDLFloat, 16, 1}, FUSEDRNN_COMPUTE_SAME, 1e-3},
    {"float32 in bfloat16", {kDLFloat, 32, 1}, FUSEDRNN_COMPUTE_BFLOAT16, 1e-2},
};
enum { FLOAT32, FLOAT64, BFLOAT16, FLOAT16, FLOAT32_IN_BFLOAT16, FORMATS };

static const char* const kCells[] = {"rnn_tanh", "rnn_relu",         "rnn_sigmoid", "rnn_identity",
                                     "gru",      "gru_reset_before", "lstm"};
enum { CELLS = sizeof kCells / sizeof kCells[0] };

/* From -1 to 1. */
static inline double random_value(void) {
  static uint32_t state = 1;
  state = state * 1664525u + 1013904223u;
  return (double)(state >> 8) / (1 << 23) - 1;
}

static inline uint32_t float_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

/* Cut off, not rounded: any number near `value` is as good. */
static inline void store(unsigned char* element, DLDataType type, double value) {
  const float single = (float)value;
  const uint32_t bits = float_bits(single);
  if (type.bits == 64) {
    memcpy(element, &value, sizeof value);
  } else if (type.bits == 32) {
    memcpy(element, &single, sizeof single);
  } else if (type.code == kDLBfloat) {
    const uint16_t word = (uint16_t)(bits >> 16);
    memcpy(element, &word, sizeof word);
  } else {
    const int exponent = (int)(bits >> 23 & 255) - 127 + 15;
    const uint32_t magnitude = exponent < 1 ? 0 : (uint32_t)exponent << 10 | (bits >> 13 & 0x3ff);
    const uint16_t word = (uint16_t)((bits >> 16 & 0x8000) | magnitude);
    memcpy(element, &word, sizeof word);
  }
}

static inline double load(const unsigned char* element, DLDataType type) {
  double wide = 0;
  float single = 0;
  uint16_t word = 0;
  if (type.bits == 64) {
    memcpy(&wide, element, sizeof wide);
    return wide;
  }
  if (type.bits == 32) {
    memcpy(&single, element, sizeof single);
    return (double)single;
  }
  memcpy(&word, element, sizeof word);
  if (type.code == kDLBfloat) {
    const uint32_t bits = (uint32_t)word << 16;
    memcpy(&single, &bits, sizeof single);
    return (double)single;
  }
  const int exponent = word >> 10 & 31, fraction = word & 0x3ff;
  const double magnitude = exponent == 31  ? NAN /* or infinity, as wrong here */
                           : exponent == 0 ? ldexp(fraction, -24)
                                           : ldexp(1024 + fraction, exponent - 25);
  return (word & 0x8000) != 0 ? -magnitude : magnitude;
}

/* --- arrays --- */

/* Beyond the size of any array that a test lays over another. */
enum { GUARD_BYTES = 2048, UNTOUCHED = 0xa5 };

/* Rows of its last axis, `gap` elements apart, among bytes that are UNTOUCHED. */
typedef struct {
  int64_t shape[3], strides[3];
  int64_t rows, row_length;
  size_t item;
  unsigned char* block;
  size_t block_bytes;
  DLTensor tensor;
} Array;

static inline Array* new_array(DLDataType type, int ndim, const int64_t* shape, int64_t gap) {
  Array* const a = allocate(sizeof *a);
  memset(a, 0, sizeof *a);
  a->item = (size_t)type.bits / 8;
  a->rows = 1;
  a->row_length = shape[ndim - 1];
  int64_t stride = 1;
  for (int i = ndim - 1; i >= 0; --i) {
    a->shape[i] = shape[i];
    a->strides[i] = stride;
    stride *= shape[i];
    if (i == ndim - 1) stride += gap;
    if (i < ndim - 1) a->rows *= shape[i];
  }
  a->block_bytes = 2 * GUARD_BYTES + (size_t)stride * a->item;
  a->block = allocate(a->block_bytes);
  memset(a->block, UNTOUCHED, a->block_bytes);
  a->tensor = (DLTensor){.data = a->block + GUARD_BYTES,
                         .device = {kDLCPU, 0},
                         .ndim = ndim,
                         .dtype = type,
                         .shape = a->shape,
                         .strides = gap == 0 ? NULL : a->strides};
  return a;
}

static inline void free_array(Array* a) {
  if (a == NULL) return;
  free(a->block);
  free(a);
}

static inline unsigned char* row_of(const Array* a, int64_t row) {
  const int64_t length = a->row_length == 0 ? 1 : a->row_length;
  const int64_t pitch = a->tensor.ndim < 2 ? length : a->strides[a->tensor.ndim - 2];
  return a->block + GUARD_BYTES + (size_t)(row * pitch) * a->item;
}
static inline unsigned char* element_of(const Array* a, int64_t row, int64_t column) {
  return row_of(a, row) + (size_t)column * a->item;
}
static inline double value_of(const Array* a, int64_t row, int64_t column) {
  return load(element_of(a, row, column), a->tensor.dtype);
}
static inline size_t row_bytes(const Array* a) { return (size_t)a->row_length * a->item; }

/* Its numbers scaled by `scale`, or, of a type that has none, left as they are. */
static inline void fill_random(Array* a, double scale) {
  for (int64_t r = 0; r < a->rows; ++r) {
    for (int64_t c = 0; c < a->row_length; ++c) {
      store(element_of(a, r, c), a->tensor.dtype, scale * random_value());
    }
  }
}

static inline void fill_bytes(Array* a, int byte) {
  for (int64_t r = 0; r < a->rows; ++r) memset(row_of(a, r), byte, row_bytes(a));
}

/* Columns of `from`, beginning with column `offset`. */
static inline void copy_columns(Array* to, const Array* from, int64_t offset) {
  CHECK(to->rows == from->rows && offset + to->row_length <= from->row_length);
  for (int64_t r = 0; r < to->rows; ++r) {
    memcpy(row_of(to, r), element_of(from, r, offset), row_bytes(to));
  }
}
/* ... and into such columns of `to`. */
static inline void copy_into_columns(Array* to, int64_t offset, const Array* from) {
  CHECK(to->rows == from->rows && offset + from->row_length <= to->row_length);
  for (int64_t r = 0; r < to->rows; ++r) {
    memcpy(element_of(to, r, offset), row_of(from, r), row_bytes(from));
  }
}

/* Whether `part` has the bits of those columns of `whole`. */
static inline int same_columns(const Array* part, const Array* whole, int64_t offset) {
  if (part->rows != whole->rows || offset + part->row_length > whole->row_length) return 0;
  for (int64_t r = 0; r < part->rows; ++r) {
    if (memcmp(row_of(part, r), element_of(whole, r, offset), row_bytes(part)) != 0) return 0;
  }
  return 1;
}
static inline int same_bits(const Array* a, const Array* b) {
  return a->row_length == b->row_length && same_columns(a, b, 0);
}

/* Whether each of its bytes is `byte`. */
static inline int is_all(const Array* a, int byte) {
  for (int64_t r = 0; r < a->rows; ++r) {
    for (size_t i = 0; i < row_bytes(a); ++i) {
      if (row_of(a, r)[i] != byte) return 0;
    }
  }
  return 1;
}

/* Whether nothing around its elements has been written. */
static inline int is_guarded(const Array* a) {
  unsigned char* const copy = allocate(a->block_bytes);
  memcpy(copy, a->block, a->block_bytes);
  for (int64_t r = 0; r < a->rows; ++r) {
    memset(copy + (row_of(a, r) - a->block), UNTOUCHED, row_bytes(a));
  }
  int guarded = 1;
  for (size_t i = 0; i < a->block_bytes; ++i) guarded &= copy[i] == UNTOUCHED;
  free(copy);
  return guarded;
}

/* --- networks --- */

enum { MAX_RUNS = 8, MAX_PARAMETERS = 4 * MAX_RUNS, MAX_STATES = 2 * MAX_RUNS };

/* Reads and writes whole rows. */
static inline fusedrnn_run layer(const char* cell, int32_t row, int64_t input_size,
                                 int64_t hidden_size) {
  return (fusedrnn_run){.cell = cell,
                        .reads = row,
                        .writes = row + 1,
                        .input_size = input_size,
                        .hidden_size = hidden_size};
}
static inline fusedrnn_run reversed(fusedrnn_run run) {
  run.reverse = 1;
  return run;
}
/* The same cell, with columns of its own to read and write. */
static inline fusedrnn_run placed(fusedrnn_run run, int64_t read_offset, int64_t write_offset) {
  run.read_offset = read_offset;
  run.write_offset = write_offset;
  return run;
}

static inline fusedrnn_run with_rows(fusedrnn_run run, int32_t reads, int32_t writes) {
  run.reads = reads;
  run.writes = writes;
  return run;
}

static inline fusedrnn_run with_constants(fusedrnn_run run, const double* constants,
                                          int32_t count) {
  run.constants = constants;
  run.num_constants = count;
  return run;
}

static inline fusedrnn_network* new_network(const fusedrnn_run* runs, int num_runs, DLDataType type,
                                            int32_t compute) {
  const fusedrnn_network_args args = {
      .size = sizeof args, .runs = runs, .num_runs = num_runs, .compute = compute, .dtype = type};
  fusedrnn_network* network = NULL;
  if (fusedrnn_network_create(&args, &network) != FUSEDRNN_OK) {
    fprintf(stderr, "[%s] no network: %s\n", context, fusedrnn_last_error());
    exit(1);
  }
  return network;
}

typedef struct {
  const Format* format;
  int64_t steps, batch;
  int masks;   /* whether there are lengths and resets */
  int64_t gap; /* between the rows of every array, in elements */
} Setting;

/* Arrays, and the list of their tensors that a call takes. */
typedef struct {
  int count;
  Array* arrays[MAX_PARAMETERS];
  DLTensor* tensors[MAX_PARAMETERS];
} List;

/* A network, and a forward and a backward call with all that they may be given. */
typedef struct {
  Setting setting;
  fusedrnn_run runs[MAX_RUNS];
  fusedrnn_network* network;
  fusedrnn_network_info info;
  Array *x, *y, *dx, *dy;
  List parameters, dparameters, states, states_n, dstates, dstates_n;
  Array *lengths, *resets; /* NULL without masks */
  unsigned char* reserve_block;
  unsigned char* reserve; /* aligned to 16 bytes and no more */
  size_t reserve_bytes;
  fusedrnn_forward_args forward; /* of training */
  fusedrnn_backward_args backward;
} Problem;

static inline const DLTensor* const* inputs_of(const List* list) {
  return (const DLTensor* const*)list->tensors;
}

static inline Array* new_sequence(const Setting* s, int64_t width) {
  const int64_t shape[] = {s->steps, s->batch, width};
  return new_array(s->format->type, 3, shape, s->gap);
}

static inline void add_array(List* list, const Setting* s, int ndim, const int64_t* shape) {
  Array* const a = new_array(s->format->type, ndim, shape, s->gap);
  list->arrays[list->count] = a;
  list->tensors[list->count++] = &a->tensor;
}

static inline void free_list(List* list) {
  for (int i = 0; i < list->count; ++i) free_array(list->arrays[i]);
}

static inline void fill_list(List* list, double scale) {
  for (int i = 0; i < list->count; ++i) fill_random(list->arrays[i], scale);
}
static inline void clear_list(List* list, int byte) {
  for (int i = 0; i < list->count; ++i) fill_bytes(list->arrays[i], byte);
}
static inline int same_lists(const List* a, const List* b) {
  int same = a->count == b->count;
  for (int i = 0; same && i < a->count; ++i) same = same_bits(a->arrays[i], b->arrays[i]);
  return same;
}

/* The first sequence has all steps, the second none, the others something between. */
static inline void add_masks(Problem* p) {
  const int64_t T = p->setting.steps, B = p->setting.batch, shape[] = {T, B};
  p->lengths = new_array((DLDataType){kDLInt, 32, 1}, 1, shape + 1, 0);
  p->resets = new_array((DLDataType){kDLBool, 8, 1}, 2, shape, p->setting.gap);
  for (int64_t b = 0; b < B; ++b) {
    const int32_t length = (int32_t)(b == 1 ? 0 : (T * (B - b) + B - 1) / B);
    memcpy(element_of(p->lengths, 0, b), &length, sizeof length);
    for (int64_t t = 0; t < T; ++t) *element_of(p->resets, t, b) = (t * 3 + b) % 4 == 2;
  }
}

/* What every call writes is all ones from here on: NaN, as long as nobody writes. */
static inline void clear_outputs(Problem* p) {
  fill_bytes(p->y, 0xff);
  fill_bytes(p->dx, 0xff);
  clear_list(&p->states_n, 0xff);
  clear_list(&p->dparameters, 0xff);
  clear_list(&p->dstates, 0xff);
}

static inline Problem* new_problem(const fusedrnn_run* runs, int num_runs, Setting setting) {
  Problem* const p = allocate(sizeof *p);
  memset(p, 0, sizeof *p);
  p->setting = setting;
  const Format* const format = setting.format;
  memcpy(p->runs, runs, (size_t)num_runs * sizeof *runs);
  p->network = new_network(runs, num_runs, format->type, format->compute);
  CHECK(fusedrnn_network_describe(p->network, &p->info) == FUSEDRNN_OK);
  CHECK(p->info.num_runs == num_runs && num_runs <= MAX_RUNS);
  p->x = new_sequence(&setting, p->info.input_size);
  p->dx = new_sequence(&setting, p->info.input_size);
  p->y = new_sequence(&setting, p->info.output_size);
  p->dy = new_sequence(&setting, p->info.output_size);
  for (int32_t i = 0; i < p->info.num_parameters; ++i) {
    fusedrnn_array_info info;
    CHECK(fusedrnn_network_parameter(p->network, i, &info) == FUSEDRNN_OK);
    add_array(&p->parameters, &setting, info.ndim, info.shape);
    add_array(&p->dparameters, &setting, info.ndim, info.shape);
  }
  for (int32_t i = 0; i < p->info.num_states; ++i) {
    fusedrnn_array_info info;
    CHECK(fusedrnn_network_state(p->network, i, &info) == FUSEDRNN_OK);
    const int64_t shape[] = {setting.batch, info.shape[0]};
    List* const lists[] = {&p->states, &p->states_n, &p->dstates, &p->dstates_n};
    for (int k = 0; k < 4; ++k) add_array(lists[k], &setting, 2, shape);
  }
  if (setting.masks) add_masks(p);
  fill_random(p->x, 1);
  fill_random(p->dy, 1);
  fill_list(&p->parameters, 0.5);
  fill_list(&p->states, 1);
  fill_list(&p->dstates_n, 1);
  clear_outputs(p);

  if (format->compute != FUSEDRNN_COMPUTE_INT8) { /* which has none: it is not trained */
    CHECK(fusedrnn_reserve_bytes(p->network, (DLDevice){kDLCPU, 0}, setting.steps, setting.batch,
                                 &p->reserve_bytes) == FUSEDRNN_OK);
  }
  p->reserve_block = allocate(p->reserve_bytes + 2 * GUARD_BYTES);
  memset(p->reserve_block, UNTOUCHED, p->reserve_bytes + 2 * GUARD_BYTES);
  p->reserve = p->reserve_block + 16;
  while ((uintptr_t)p->reserve % 64 != 16) ++p->reserve;

  const DLTensor* const lengths = setting.masks ? &p->lengths->tensor : NULL;
  const DLTensor* const resets = setting.masks ? &p->resets->tensor : NULL;
  p->forward = (fusedrnn_forward_args){.size = sizeof p->forward,
                                       .network = p->network,
                                       .x = &p->x->tensor,
                                       .parameters = inputs_of(&p->parameters),
                                       .states = inputs_of(&p->states),
                                       .lengths = lengths,
                                       .resets = resets,
                                       .y = &p->y->tensor,
                                       .states_n = p->states_n.tensors,
                                       .reserve = p->reserve,
                                       .reserve_bytes = p->reserve_bytes};
  p->backward = (fusedrnn_backward_args){.size = sizeof p->backward,
                                         .network = p->network,
                                         .x = &p->x->tensor,
                                         .parameters = inputs_of(&p->parameters),
                                         .lengths = lengths,
                                         .resets = resets,
                                         .reserve = p->reserve,
                                         .reserve_bytes = p->reserve_bytes,
                                         .dy = &p->dy->tensor,
                                         .dstates_n = inputs_of(&p->dstates_n),
                                         .dx = &p->dx->tensor,
                                         .dparameters = p->dparameters.tensors,
                                         .dstates = p->dstates.tensors};
  return p;
}

static inline void free_problem(Problem* p) {
  fusedrnn_network_free(p->network);
  Array* const arrays[] = {p->x, p->y, p->dx, p->dy, p->lengths, p->resets};
  for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; ++i) free_array(arrays[i]);
  List* const lists[] = {&p->parameters, &p->dparameters, &p->states,
                         &p->states_n,   &p->dstates,     &p->dstates_n};
  for (size_t i = 0; i < sizeof lists / sizeof lists[0]; ++i) free_list(lists[i]);
  free(p->reserve_block);
  free(p);
}

/* Whether the bytes around the reserve are as they were. */
static inline int reserve_is_guarded(const Problem* p) {
  int guarded = 1;
  const unsigned char* const end = p->reserve_block + p->reserve_bytes + 2 * GUARD_BYTES;
  for (const unsigned char* byte = p->reserve_block; byte < end; ++byte) {
    const int inside = byte >= p->reserve && byte < p->reserve + p->reserve_bytes;
    guarded &= inside || *byte == UNTOUCHED;
  }
  return guarded;
}

/* Inference with the problem's arrays. */
static inline fusedrnn_forward_args inference_of(const Problem* p) {
  fusedrnn_forward_args args = p->forward;
  args.reserve = NULL;
  args.reserve_bytes = 0;
  return args;
}

static inline void must_be_ok(fusedrnn_status status, int line) {
  if (status == FUSEDRNN_OK) return;
  fprintf(stderr, "line %d: [%s] status %d: %s\n", line, context, (int)status,
          fusedrnn_last_error());
  ++failures;
}
#define MUST(call) must_be_ok(call, __LINE__)

/* A training step. */
static inline void train(Problem* p) {
  MUST(fusedrnn_forward(&p->forward));
  MUST(fusedrnn_backward(&p->backward));
}

/* sum(y * dy) + sum(states_n * dstates_n), whose gradients backward gives. */
static inline double loss_of(Problem* p) {
  const fusedrnn_forward_args args = inference_of(p);
  MUST(fusedrnn_forward(&args));
  double sum = 0;
  for (int k = -1; k < p->states_n.count; ++k) {
    const Array* const value = k < 0 ? p->y : p->states_n.arrays[k];
    const Array* const upstream = k < 0 ? p->dy : p->dstates_n.arrays[k];
    for (int64_t r = 0; r < value->rows; ++r) {
      for (int64_t c = 0; c < value->row_length; ++c) {
        sum += value_of(value, r, c) * value_of(upstream, r, c);
      }
    }
  }
  return sum;
}

static inline void check_differences(Problem* p, const Array* variable, const Array* gradient) {
  const double step = 1e-5;
  for (int64_t r = 0; r < variable->rows; ++r) {
    for (int64_t c = 0; c < variable->row_length; ++c) {
      const double before = value_of(variable, r, c);
      store(element_of(variable, r, c), variable->tensor.dtype, before + step);
      const double above = loss_of(p);
      store(element_of(variable, r, c), variable->tensor.dtype, before - step);
      const double below = loss_of(p);
      store(element_of(variable, r, c), variable->tensor.dtype, before);
      CHECK(fabs((above - below) / (2 * step) - value_of(gradient, r, c)) < 1e-8);
    }
  }
}

/* Every gradient of a problem of float64 against central differences. */
static inline void check_gradients(Problem* p) {
  train(p);
  check_differences(p, p->x, p->dx);
  for (int i = 0; i < p->parameters.count; ++i) {
    check_differences(p, p->parameters.arrays[i], p->dparameters.arrays[i]);
  }
  for (int i = 0; i < p->states.count; ++i) {
    check_differences(p, p->states.arrays[i], p->dstates.arrays[i]);
  }
}

/* Whether the instruction set that FUSEDRNN_ISA names, where it names one, runs on this machine. */
static inline int can_run(void) {
  const fusedrnn_run run = layer("lstm", 0, 1, 1);
  const Setting setting = {&kFormats[FLOAT32], 1, 1, 0, 0};
  fusedrnn_network* const network =
      new_network(&run, 1, setting.format->type, setting.format->compute);
  size_t bytes = 0;
  const fusedrnn_status status =
      fusedrnn_reserve_bytes(network, (DLDevice){kDLCPU, 0}, 1, 1, &bytes);
  fusedrnn_network_free(network);
  if (status != FUSEDRNN_UNAVAILABLE) return 1;
  puts(fusedrnn_last_error());
  return 0;
}
enum { NOT_ON_THIS_MACHINE = 77 }; /* what ctest takes for it */

static inline int result(void) {
  if (failures > 0) fprintf(stderr, "%d failures\n", failures);
  return failures > 0;
}

#endif /* FUSEDRNN_TESTS_ABI_SUPPORT_H_ */
