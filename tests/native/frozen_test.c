/* Frozen weights from C11: steps against a run, and what a real-time thread is promised.
 *
 * Where the C library is glibc, the allocator and the mutexes are replaced by ones that count while
 * a step runs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fenv.h>
#include <float.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fusedrnn/fusedrnn.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
#define COUNTING 0
#else
#define COUNTING 1
#endif

static int failures = 0;

#define CHECK(condition)                                              \
  do {                                                                \
    if (!(condition)) {                                               \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
      ++failures;                                                     \
    }                                                                 \
  } while (0)

/* --- counting what a real-time thread must not do --- */

static _Thread_local int in_step = 0;
static atomic_int allocations, locks;

#if COUNTING
extern void* __libc_malloc(size_t size);
extern void* __libc_calloc(size_t count, size_t size);
extern void* __libc_realloc(void* block, size_t size);
extern void* __libc_memalign(size_t alignment, size_t size);
extern void __libc_free(void* block);

void* malloc(size_t size) {
  allocations += in_step;
  return __libc_malloc(size);
}
void* calloc(size_t count, size_t size) {
  allocations += in_step;
  return __libc_calloc(count, size);
}
void* realloc(void* block, size_t size) {
  allocations += in_step;
  return __libc_realloc(block, size);
}
void* aligned_alloc(size_t alignment, size_t size) {
  allocations += in_step;
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** block, size_t alignment, size_t size) {
  allocations += in_step;
  *block = __libc_memalign(alignment, size);
  return *block == NULL;
}
void free(void* block) {
  allocations += in_step;
  __libc_free(block);
}

typedef int (*mutex_function)(pthread_mutex_t*);
static int call_mutex(const char* name, _Atomic(mutex_function)* found, pthread_mutex_t* mutex) {
  locks += in_step;
  mutex_function function = *found;
  if (function == NULL) {
    void* symbol = dlsym(RTLD_NEXT, name);
    memcpy(&function, &symbol, sizeof function);
    *found = function;
  }
  return function(mutex);
}
int pthread_mutex_lock(pthread_mutex_t* mutex) {
  static _Atomic(mutex_function) found;
  return call_mutex("pthread_mutex_lock", &found, mutex);
}
int pthread_mutex_trylock(pthread_mutex_t* mutex) {
  static _Atomic(mutex_function) found;
  return call_mutex("pthread_mutex_trylock", &found, mutex);
}
#endif

/* The counters themselves work: otherwise the tests below would pass for nothing. */
static void test_counters(void) {
#if COUNTING
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  in_step = 1;
  void* volatile block = malloc(8);
  pthread_mutex_lock(&mutex);
  in_step = 0;
  CHECK(allocations == 1);
  CHECK(locks == 1);
  pthread_mutex_unlock(&mutex);
  free(block);
  allocations = locks = 0;
#endif
}

/* --- problems --- */

enum { T = 5, MAX_B = 9, I = 7, H = 21, ROWS = 4 * H, MAX_VALUES = ROWS * H };

typedef struct {
  int bits;
  int64_t shape[3];
  DLTensor tensor;
  size_t bytes;
  _Alignas(64) unsigned char memory[MAX_VALUES * 8];
} Variable;

static double next_value(void) {
  static unsigned state = 1;
  state = state * 1664525u + 1013904223u;
  return (double)(state >> 8) / (1 << 23) - 1;
}

static void make(Variable* v, int bits, int ndim, int64_t a, int64_t b, int64_t c) {
  const int64_t shape[] = {a, b, c};
  int64_t count = 1;
  for (int i = 0; i < ndim; ++i) count *= v->shape[i] = shape[i];
  v->bits = bits;
  v->bytes = (size_t)(count * bits / 8);
  for (int64_t i = 0; i < count; ++i) {
    if (bits == 64) {
      ((double*)(void*)v->memory)[i] = next_value();
    } else {
      ((float*)(void*)v->memory)[i] = (float)next_value();
    }
  }
  v->tensor = (DLTensor){.data = v->memory,
                         .device = {kDLCPU, 0},
                         .ndim = ndim,
                         .dtype = {kDLFloat, (uint8_t)bits, 1},
                         .shape = v->shape};
}

enum { X, W_IH, W_HH, B_IH, B_HH, H0, C0, Y, H_N, C_N, VARIABLES };

typedef struct {
  Variable v[VARIABLES];
  fusedrnn_forward_args forward;
  fusedrnn_freeze_args freeze;
} Problem;

static int64_t rows_of(fusedrnn_cell cell) {
  return cell == FUSEDRNN_LSTM ? 4 * H : cell >= FUSEDRNN_GRU ? 3 * H : H;
}

static void set_up(Problem* p, fusedrnn_cell cell, int bits, int64_t batch) {
  memset(p, 0, sizeof *p);
  const int64_t rows = rows_of(cell);
  const int has_c = cell == FUSEDRNN_LSTM;
  make(&p->v[X], bits, 3, T, batch, I);
  make(&p->v[W_IH], bits, 2, rows, I, 1);
  make(&p->v[W_HH], bits, 2, rows, H, 1);
  make(&p->v[B_IH], bits, 1, rows, 1, 1);
  make(&p->v[B_HH], bits, 1, rows, 1, 1);
  make(&p->v[Y], bits, 3, T, batch, H);
  for (int k = 0; k < 2; ++k) {
    make(&p->v[H0 + k], bits, 2, batch, H, 1);
    make(&p->v[H_N + k], bits, 2, batch, H, 1);
  }
  p->forward = (fusedrnn_forward_args){.size = sizeof(fusedrnn_forward_args),
                                       .cell = cell,
                                       .x = &p->v[X].tensor,
                                       .w_ih = &p->v[W_IH].tensor,
                                       .w_hh = &p->v[W_HH].tensor,
                                       .b_ih = &p->v[B_IH].tensor,
                                       .b_hh = &p->v[B_HH].tensor,
                                       .h0 = &p->v[H0].tensor,
                                       .c0 = has_c ? &p->v[C0].tensor : NULL,
                                       .y = &p->v[Y].tensor,
                                       .h_n = &p->v[H_N].tensor,
                                       .c_n = has_c ? &p->v[C_N].tensor : NULL};
  p->freeze = (fusedrnn_freeze_args){.size = sizeof(fusedrnn_freeze_args),
                                     .cell = cell,
                                     .w_ih = p->forward.w_ih,
                                     .w_hh = p->forward.w_hh,
                                     .b_ih = p->forward.b_ih,
                                     .b_hh = p->forward.b_hh};
}

static fusedrnn_forward_args without_weights(const Problem* p) {
  fusedrnn_forward_args args = p->forward;
  args.w_ih = args.w_hh = args.b_ih = args.b_hh = NULL;
  return args;
}

/* The promises hold for this call. */
static fusedrnn_status step(const fusedrnn_frozen* frozen, int64_t batch, const void* x,
                            const void* const* prev, void* const* next, void* workspace) {
  in_step = 1;
  const fusedrnn_status status = fusedrnn_frozen_step(frozen, batch, x, prev, next, workspace);
  in_step = 0;
  CHECK(allocations == 0);
  CHECK(locks == 0);
  return status;
}

/* Walks all steps in place and compares with the outputs of a run. */
static void check_steps(Problem* p, const fusedrnn_frozen* frozen, void* workspace, int from_zero) {
  const int64_t batch = p->v[X].shape[1];
  const size_t x_bytes = p->v[X].bytes / T, y_bytes = p->v[Y].bytes / T;
  static _Alignas(64) unsigned char memory[2][MAX_B * H * 8];
  void* state[] = {memory[0], memory[1]};
  const void* const prev[] = {state[0], state[1]};
  for (int k = 0; k < 2; ++k) memcpy(state[k], p->v[H0 + k].memory, p->v[H0 + k].bytes);
  for (int t = 0; t < T; ++t) {
    const unsigned char* x = p->v[X].memory + (size_t)t * x_bytes;
    const int has_none = from_zero && t == 0;
    CHECK(step(frozen, batch, x, has_none ? NULL : prev, state, workspace) == FUSEDRNN_OK);
    CHECK(memcmp(state[0], p->v[Y].memory + (size_t)t * y_bytes, y_bytes) == 0);
  }
  CHECK(memcmp(state[0], p->v[H_N].memory, y_bytes) == 0);
  if (p->forward.c_n != NULL) CHECK(memcmp(state[1], p->v[C_N].memory, y_bytes) == 0);
}

static void test_steps(Problem* p, fusedrnn_cell cell, int bits, int64_t batch) {
  set_up(p, cell, bits, batch);
  fusedrnn_frozen* frozen = NULL;
  CHECK(fusedrnn_freeze(&p->freeze, &frozen) == FUSEDRNN_OK);
  CHECK(fusedrnn_forward(&p->forward, NULL) == FUSEDRNN_OK);
  /* The weights are copies: the caller's may change now. */
  fusedrnn_forward_args zero_state = p->forward;
  zero_state.h0 = zero_state.c0 = NULL;
  const size_t bytes = fusedrnn_frozen_workspace(frozen, batch);
  CHECK(bytes >= 64);
  void* workspace = aligned_alloc(64, (bytes + 63) / 64 * 64);
  memset(workspace, 0xff, bytes);
  check_steps(p, frozen, workspace, 0);
  CHECK(fusedrnn_forward(&zero_state, NULL) == FUSEDRNN_OK);
  for (int k = W_IH; k <= B_HH; ++k) memset(p->v[k].memory, 0xff, p->v[k].bytes);
  check_steps(p, frozen, workspace, 1);

  static unsigned char y[sizeof p->v[Y].memory];
  memcpy(y, p->v[Y].memory, p->v[Y].bytes);
  memset(p->v[Y].memory, 0xff, p->v[Y].bytes);
  fusedrnn_forward_args args = without_weights(p);
  args.h0 = args.c0 = NULL;
  CHECK(fusedrnn_frozen_forward(frozen, &args) == FUSEDRNN_OK);
  CHECK(memcmp(y, p->v[Y].memory, p->v[Y].bytes) == 0);

  free(workspace);
  fusedrnn_frozen_free(frozen);
}

/* Other threads keep the pool, whose team a step must neither want nor wait for. */
typedef struct {
  atomic_int stop, rounds;
} Rival;

static void* keep_the_pool_busy(void* opaque) {
  Rival* rival = opaque;
  Problem* p = malloc(sizeof *p);
  set_up(p, FUSEDRNN_LSTM, 64, MAX_B);
  do {
    fusedrnn_forward(&p->forward, NULL);
    ++rival->rounds;
  } while (!rival->stop);
  free(p);
  return NULL;
}

static void test_beside_a_busy_pool(Problem* p) {
  Rival rival = {0};
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, keep_the_pool_busy, &rival) == 0);
  while (rival.rounds == 0) sched_yield();
  for (int round = 0; round < 20; ++round) test_steps(p, FUSEDRNN_GRU, 32, 4);
  rival.stop = 1;
  pthread_join(thread, NULL);
}

static void test_the_mode_of_the_thread(Problem* p) {
  set_up(p, FUSEDRNN_RNN_IDENTITY, 32, 1);
  fusedrnn_frozen* frozen = NULL;
  CHECK(fusedrnn_freeze(&p->freeze, &frozen) == FUSEDRNN_OK);
  CHECK(fusedrnn_forward(&p->forward, NULL) == FUSEDRNN_OK);
  void* workspace = aligned_alloc(64, (fusedrnn_frozen_workspace(frozen, 1) + 63) / 64 * 64);
  CHECK(fesetround(FE_UPWARD) == 0);
  check_steps(p, frozen, workspace, 0);
  CHECK(fegetround() == FE_UPWARD);
  fesetround(FE_TONEAREST);
  volatile float tiny = FLT_MIN;
  CHECK(tiny / 2 > 0); /* denormals are the caller's again */
  free(workspace);
  fusedrnn_frozen_free(frozen);
}

static void expect(fusedrnn_status got, fusedrnn_status status, const char* message) {
  CHECK(got == status);
  if (strcmp(fusedrnn_last_error(), message) != 0) {
    fprintf(stderr, "expected \"%s\"\n     got \"%s\"\n", message, fusedrnn_last_error());
    ++failures;
  }
}

static void test_what_a_step_refuses(Problem* p) {
  set_up(p, FUSEDRNN_LSTM, 32, 2);
  fusedrnn_frozen* frozen = NULL;
  CHECK(fusedrnn_freeze(&p->freeze, &frozen) == FUSEDRNN_OK);
  _Alignas(64) static unsigned char workspace[1 << 16];
  CHECK(fusedrnn_frozen_workspace(frozen, 2) < sizeof workspace);
  unsigned char *x = p->v[X].memory, *h = p->v[H0].memory, *c = p->v[C0].memory;
  const void* prev[] = {h, c};
  void* next[] = {p->v[H_N].memory, p->v[C_N].memory};
  const fusedrnn_status bad = FUSEDRNN_INVALID_VALUE;
  memset(p->v[H_N].memory, 0x55, p->v[H_N].bytes);

  expect(step(NULL, 2, x, prev, next, workspace), bad, "frozen: expected an address, got null");
  expect(step(frozen, -1, x, prev, next, workspace), bad,
         "batch: expected at least 0, got a negative number");
  expect(step(frozen, 2, NULL, prev, next, workspace), bad, "x: expected an address, got null");
  expect(step(frozen, 2, x + 1, prev, next, workspace), bad,
         "x: expected an address aligned to its elements");
  expect(step(frozen, 2, x, prev, NULL, workspace), bad,
         "next_states: expected an address, got null");
  expect(step(frozen, 2, x, prev, next, NULL), bad, "workspace: expected an address, got null");
  expect(step(frozen, 2, x, prev, next, workspace + 32), bad,
         "workspace: expected an address aligned to 64 bytes");
  const void* misaligned_prev[] = {h, c + 2};
  expect(step(frozen, 2, x, misaligned_prev, next, workspace), bad,
         "prev_states: expected addresses aligned to their elements");
  void* null_next[] = {next[0], NULL};
  expect(step(frozen, 2, x, prev, null_next, workspace), bad,
         "next_states: expected an address of each state, got null");
  void* misaligned_next[] = {p->v[H_N].memory + 1, next[1]};
  expect(step(frozen, 2, x, prev, misaligned_next, workspace), bad,
         "next_states: expected addresses aligned to their elements");
  for (size_t i = 0; i < p->v[H_N].bytes; ++i) CHECK(p->v[H_N].memory[i] == 0x55);

  /* Messages with and without memory of their own take turns. */
  CHECK(fusedrnn_set_num_threads(0) == bad);
  CHECK(strncmp(fusedrnn_last_error(), "n: expected a number of threads", 31) == 0);
  expect(step(NULL, 2, x, prev, next, workspace), bad, "frozen: expected an address, got null");
  CHECK(step(frozen, 0, x, prev, next, workspace) == FUSEDRNN_OK);
  expect(FUSEDRNN_OK, FUSEDRNN_OK, "frozen: expected an address, got null"); /* as it was */
  const void* no_c[] = {h, NULL};
  CHECK(step(frozen, 2, x, no_c, next, workspace) == FUSEDRNN_OK);
  CHECK(step(frozen, 2, x, NULL, next, workspace) == FUSEDRNN_OK);
  fusedrnn_frozen_free(frozen);
}

static void test_messages(Problem* p) {
  set_up(p, FUSEDRNN_GRU, 32, 2);
  fusedrnn_frozen* frozen = NULL;
  expect(fusedrnn_freeze(NULL, &frozen), FUSEDRNN_INVALID_VALUE,
         "args: expected an address, got null");
  expect(fusedrnn_freeze(&p->freeze, NULL), FUSEDRNN_INVALID_VALUE,
         "frozen: expected an address, got null");
  fusedrnn_freeze_args freeze = p->freeze;
  freeze.size = 8;
  CHECK(fusedrnn_freeze(&freeze, &frozen) == FUSEDRNN_INVALID_VALUE);
  CHECK(strncmp(fusedrnn_last_error(), "fusedrnn_freeze_args: expected size = ", 38) == 0);
  freeze = p->freeze;
  freeze.cell = 99;
  expect(fusedrnn_freeze(&freeze, &frozen), FUSEDRNN_INVALID_VALUE,
         "cell: expected a fusedrnn_cell, got 99");
  freeze = p->freeze;
  freeze.compute = 99;
  expect(fusedrnn_freeze(&freeze, &frozen), FUSEDRNN_INVALID_VALUE,
         "compute: expected a fusedrnn_compute, got 99");
  freeze.compute = FUSEDRNN_COMPUTE_TFLOAT32;
  expect(fusedrnn_freeze(&freeze, &frozen), FUSEDRNN_INVALID_VALUE,
         "compute: expected what the CPU has (FUSEDRNN_COMPUTE_SAME or _BFLOAT16), got "
         "FUSEDRNN_COMPUTE_TFLOAT32");
  freeze = p->freeze;
  freeze.w_ih = NULL;
  expect(fusedrnn_freeze(&freeze, &frozen), FUSEDRNN_INVALID_VALUE,
         "w_ih: expected an array, got none");
  freeze = p->freeze;
  freeze.w_hh = freeze.w_ih;
  expect(fusedrnn_freeze(&freeze, &frozen), FUSEDRNN_INVALID_VALUE,
         "w_hh: expected shape (63, 21), got (63, 7)");
  p->v[B_HH].tensor.dtype.bits = 64;
  expect(fusedrnn_freeze(&p->freeze, &frozen), FUSEDRNN_INVALID_TYPE,
         "b_hh: expected dtype float32 (the dtype of w_ih), got float64");
  p->v[B_HH].tensor.dtype.bits = 32;
  CHECK(frozen == NULL);

  CHECK(fusedrnn_freeze(&p->freeze, &frozen) == FUSEDRNN_OK);
  fusedrnn_forward_args args = without_weights(p);
  expect(fusedrnn_frozen_forward(NULL, &args), FUSEDRNN_INVALID_VALUE,
         "frozen: expected an address, got null");
  expect(fusedrnn_frozen_forward(frozen, NULL), FUSEDRNN_INVALID_VALUE,
         "args: expected an address, got null");
  args.cell = FUSEDRNN_LSTM;
  expect(fusedrnn_frozen_forward(frozen, &args), FUSEDRNN_INVALID_VALUE,
         "cell: expected 4 (gru, as frozen), got 6");
  args = without_weights(p);
  args.b_ih = &p->v[B_IH].tensor;
  expect(fusedrnn_frozen_forward(frozen, &args), FUSEDRNN_INVALID_VALUE,
         "b_ih: expected none (the weights are frozen), got shape (63,)");
  args = without_weights(p);
  args.compute = FUSEDRNN_COMPUTE_BFLOAT16;
  expect(fusedrnn_frozen_forward(frozen, &args), FUSEDRNN_INVALID_VALUE,
         "compute: expected FUSEDRNN_COMPUTE_SAME (the weights are frozen), got 1");
  args = without_weights(p);
  args.x = args.y;
  expect(fusedrnn_frozen_forward(frozen, &args), FUSEDRNN_INVALID_VALUE,
         "x: expected shape (5, 2, 7), got (5, 2, 21)");
  p->v[X].tensor.dtype.bits = 64;
  args = without_weights(p);
  expect(fusedrnn_frozen_forward(frozen, &args), FUSEDRNN_INVALID_TYPE,
         "x: expected dtype float32 (the dtype of the weights), got float64");
  CHECK(fusedrnn_frozen_workspace(frozen, -1) == 0);
  CHECK(strcmp(fusedrnn_last_error(), "batch: expected at least 0, got -1") == 0);
  CHECK(fusedrnn_frozen_workspace(frozen, INT64_MAX) == 0);
  CHECK(fusedrnn_frozen_workspace(frozen, 0) >= 64);
  fusedrnn_frozen_free(frozen);
  fusedrnn_frozen_free(NULL);

  args = p->forward;
  p->v[X].tensor.dtype.bits = 32;
  args.compute = FUSEDRNN_COMPUTE_INT8;
  expect(fusedrnn_forward(&args, NULL), FUSEDRNN_INVALID_VALUE,
         "compute: expected what is there without frozen weights, got FUSEDRNN_COMPUTE_INT8");
}

static int can_run(Problem* p) {
  set_up(p, FUSEDRNN_LSTM, 32, 1);
  if (fusedrnn_forward(&p->forward, NULL) != FUSEDRNN_UNAVAILABLE) return 1;
  puts(fusedrnn_last_error());
  return 0;
}

int main(void) {
  Problem* p = malloc(sizeof *p);
  if (p == NULL) return 1;
  if (!can_run(p)) {
    free(p);
    return 77; /* what ctest takes for "not on this machine" */
  }
  test_counters();
  CHECK(fusedrnn_set_num_threads(2) == FUSEDRNN_OK);
  for (int32_t cell = FUSEDRNN_RNN_TANH; cell <= FUSEDRNN_LSTM; ++cell) {
    for (int64_t batch = 1; batch <= MAX_B; ++batch) {
      test_steps(p, (fusedrnn_cell)cell, 32, batch);
      test_steps(p, (fusedrnn_cell)cell, 64, batch);
    }
  }
  test_beside_a_busy_pool(p);
  test_the_mode_of_the_thread(p);
  test_what_a_step_refuses(p);
  test_messages(p);
  free(p);
  if (failures > 0) fprintf(stderr, "%d failures\n", failures);
  return failures > 0;
}
