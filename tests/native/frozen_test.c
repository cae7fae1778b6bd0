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

#include "abi_support.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
#define COUNTING 0
#else
#define COUNTING 1
#endif

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

/* --- steps and runs --- */

enum { T = 5, MAX_B = 9, I = 7, H = 21 };

static const Format kInt8 = {"float32 in int8", {kDLFloat, 32, 1}, FUSEDRNN_COMPUTE_INT8, 1e-2};

static Problem* set_up(const char* cell, const Format* format, int64_t batch) {
  const fusedrnn_run run = layer(cell, 0, I, H);
  return new_problem(&run, 1, (Setting){format, T, batch, 0, 0});
}

/* Three layers of unlike cells and sizes. */
static Problem* set_up_stack(const Format* format, int64_t batch) {
  const fusedrnn_run runs[] = {layer("lstm", 0, I, H), layer("gru", 1, H, 13),
                               layer("gru_reset_before", 2, 13, 17)};
  return new_problem(runs, 3, (Setting){format, T, batch, 0, 0});
}

static fusedrnn_frozen* freeze(const Problem* p) {
  fusedrnn_frozen* frozen = NULL;
  MUST(fusedrnn_freeze(p->network, p->forward.parameters, &frozen));
  return frozen;
}

static fusedrnn_forward_args without_weights(const Problem* p) {
  fusedrnn_forward_args args = inference_of(p);
  args.network = NULL;
  args.parameters = NULL;
  return args;
}

/* Of the steps of a batch: what they want and one vector more, where nobody may write. */
typedef struct {
  unsigned char *block, *memory;
  size_t bytes;
} Workspace;

static Workspace new_workspace(const fusedrnn_frozen* frozen, int64_t batch) {
  Workspace w = {.bytes = fusedrnn_frozen_workspace(frozen, batch)};
  CHECK(w.bytes >= 64);
  w.block = w.memory = allocate(w.bytes + 128);
  while ((uintptr_t)w.memory % 64 != 0) ++w.memory;
  memset(w.block, UNTOUCHED, w.bytes + 128);
  memset(w.memory, 0xff, w.bytes);
  return w;
}

static void free_workspace(Workspace* w) {
  for (const unsigned char* byte = w->memory + w->bytes; byte < w->block + w->bytes + 128; ++byte) {
    CHECK(*byte == UNTOUCHED);
  }
  free(w->block);
}

/* Whether one of its states is not rounded at every step. */
static int has_c(const Problem* p) {
  fusedrnn_array_info info;
  int found = 0;
  for (int32_t i = 0; i < p->info.num_states; ++i) {
    CHECK(fusedrnn_network_state(p->network, i, &info) == FUSEDRNN_OK);
    found |= strcmp(info.name, "c") == 0;
  }
  return found;
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

/* The same step as a run of one, from `prev` (NULL: zero) to the problem's arrays `one`. */
static void run_step(const fusedrnn_frozen* frozen, const Problem* p, int t, const List* prev,
                     Problem* one) {
  DLTensor x = p->x->tensor;
  int64_t shape[] = {1, p->setting.batch, p->info.input_size};
  x.data = row_of(p->x, t * p->setting.batch);
  x.shape = shape;
  fusedrnn_forward_args args = without_weights(one);
  args.x = &x;
  args.states = prev == NULL ? NULL : inputs_of(prev);
  clear_outputs(one);
  MUST(fusedrnn_frozen_forward(frozen, &args));
}

/* Walks all steps, in place or from one set of states to another and back, and compares each with a
 * run of one step and all with the problem's outputs, which are those of one run. The types of 16
 * bits are not compared so where there is a c: it is rounded between steps and not within a run. */
static void check_steps(const Problem* p, const fusedrnn_frozen* frozen, void* workspace,
                        int from_zero, int in_place) {
  const int64_t batch = p->setting.batch;
  const int count = p->states.count, last = p->info.num_states - 1;
  const int runs_round = p->setting.format->type.bits == 16 && has_c(p);
  Setting setting = p->setting;
  setting.steps = 1;
  Problem* const one = new_problem(p->runs, p->info.num_runs, setting);
  List memory[2] = {{0}, {0}};
  const void* prev[MAX_STATES];
  void* next[MAX_STATES];
  for (int i = 0; i < count; ++i) {
    for (int k = 0; k < 2; ++k) {
      add_array(&memory[k], &p->setting, 2, p->states.arrays[i]->shape);
    }
    copy_columns(memory[0].arrays[i], p->states.arrays[i], 0);
  }
  /* The last layer's h: it is the output. */
  fusedrnn_array_info info;
  int output = last;
  for (;; --output) {
    CHECK(fusedrnn_network_state(p->network, output, &info) == FUSEDRNN_OK);
    if (strcmp(info.name, "h") == 0) break;
  }
  for (int t = 0; t < T; ++t) {
    List* const from = &memory[in_place ? 0 : t % 2];
    List* const to = &memory[in_place ? 0 : (t + 1) % 2];
    for (int i = 0; i < count; ++i) {
      prev[i] = row_of(from->arrays[i], 0);
      next[i] = row_of(to->arrays[i], 0);
    }
    const void* const x = row_of(p->x, t * batch);
    const int has_none = from_zero && t == 0;
    run_step(frozen, p, t, has_none ? NULL : from, one);
    CHECK(step(frozen, batch, x, has_none ? NULL : prev, next, workspace) == FUSEDRNN_OK);
    const Array* const h = to->arrays[output];
    const size_t bytes = row_bytes(h) * (size_t)batch;
    CHECK(memcmp(row_of(h, 0), row_of(one->y, 0), bytes) == 0);
    CHECK(same_lists(to, &one->states_n));
    for (int i = 0; i < count; ++i) CHECK(is_guarded(to->arrays[i]));
    if (runs_round) continue;
    CHECK(memcmp(row_of(h, 0), row_of(p->y, t * batch), bytes) == 0);
    if (t == T - 1) CHECK(same_lists(to, &p->states_n));
  }
  free_problem(one);
  for (int k = 0; k < 2; ++k) free_list(&memory[k]);
}

/* The bits of a step are those of the same step of a run with frozen weights, and of a run with
 * weights as they are where there is one. */
static void test_steps(Problem* p) {
  const int has_run = p->setting.format->compute != FUSEDRNN_COMPUTE_INT8;
  fusedrnn_frozen* const frozen = freeze(p);
  Workspace workspace = new_workspace(frozen, p->setting.batch);
  fusedrnn_forward_args run = without_weights(p);
  for (int from_zero = 0; from_zero < 2; ++from_zero) {
    fusedrnn_forward_args with_weights = inference_of(p);
    if (from_zero) run.states = with_weights.states = NULL;
    clear_outputs(p);
    MUST(fusedrnn_frozen_forward(frozen, &run));
    check_steps(p, frozen, workspace.memory, from_zero, 1);
    if (!has_run || from_zero) continue;
    clear_outputs(p);
    MUST(fusedrnn_forward(&with_weights));
    check_steps(p, frozen, workspace.memory, from_zero, 0);
  }
  /* The weights and the network are copies: the caller's may change now, or be gone. */
  clear_list(&p->parameters, 0xff);
  fusedrnn_network_free(p->network);
  Array* const y = new_sequence(&p->setting, p->info.output_size);
  copy_columns(y, p->y, 0);
  clear_outputs(p);
  MUST(fusedrnn_frozen_forward(frozen, &run));
  CHECK(same_bits(y, p->y));
  p->network = NULL;
  free_array(y);
  free_workspace(&workspace);
  fusedrnn_frozen_free(frozen);
}

static void test_all_steps(void) {
  for (int f = 0; f <= FORMATS; ++f) {
    const Format* const format = f < FORMATS ? &kFormats[f] : &kInt8;
    for (int64_t batch = 1; batch <= MAX_B; ++batch) {
      for (int cell = 0; cell < CELLS; ++cell) {
        snprintf(context, sizeof context, "%s, %s, B %d", kCells[cell], format->name, (int)batch);
        Problem* const p = set_up(kCells[cell], format, batch);
        test_steps(p);
        free_problem(p);
      }
      snprintf(context, sizeof context, "stack, %s, B %d", format->name, (int)batch);
      Problem* const stack = set_up_stack(format, batch);
      test_steps(stack);
      free_problem(stack);
    }
  }
  context[0] = '\0';
}

/* What cannot take a step can be run, from frozen weights, all the same. */
static void test_networks_without_steps(void) {
  const fusedrnn_run both[] = {layer("gru", 0, I, H),
                               placed(reversed(layer("gru", 0, I, H)), 0, H)};
  const fusedrnn_run backwards[] = {layer("gru", 0, I, H), reversed(layer("gru", 1, H, H))};
  const fusedrnn_run beside[] = {layer("gru", 0, I, H), placed(layer("gru", 0, I, H), 0, H)};
  const fusedrnn_run parts[] = {layer("gru", 0, I, H), placed(layer("gru", 1, H - 2, H), 1, 0)};
  fusedrnn_run over[] = {layer("gru", 0, I, H), layer("gru", 0, I, H)};
  over[1].writes = 2;
  const struct {
    const char* name;
    const fusedrnn_run* runs;
  } networks[] = {{"both directions", both},
                  {"reverse", backwards},
                  {"side by side", beside},
                  {"parts of rows", parts},
                  {"a row that nobody reads", over}};
  for (size_t i = 0; i < sizeof networks / sizeof networks[0]; ++i) {
    snprintf(context, sizeof context, "%s", networks[i].name);
    Problem* const p = new_problem(networks[i].runs, 2, (Setting){&kFormats[FLOAT32], T, 3, 1, 1});
    fusedrnn_frozen* const frozen = freeze(p);
    CHECK(fusedrnn_frozen_workspace(frozen, 3) == 0);
    CHECK(
        strcmp(fusedrnn_last_error(),
               "frozen: expected layers in the forward direction, each on the one before, to take "
               "a step") == 0);
    _Alignas(64) static unsigned char workspace[1 << 16];
    const void* prev[] = {row_of(p->states.arrays[0], 0), row_of(p->states.arrays[1], 0)};
    void* next[] = {row_of(p->states_n.arrays[0], 0), row_of(p->states_n.arrays[1], 0)};
    EXPECT_VALUE_ERROR(step(frozen, 3, row_of(p->x, 0), prev, next, workspace),
                       "frozen: expected layers in the forward direction to take a step");
    CHECK(is_all(p->states_n.arrays[0], 0xff) && is_all(p->states_n.arrays[1], 0xff));

    const fusedrnn_forward_args inference = inference_of(p), run = without_weights(p);
    MUST(fusedrnn_forward(&inference));
    Array* const y = new_sequence(&p->setting, p->info.output_size);
    copy_columns(y, p->y, 0);
    clear_outputs(p);
    MUST(fusedrnn_frozen_forward(frozen, &run));
    CHECK(same_bits(y, p->y));
    CHECK(is_guarded(p->y) && is_guarded(p->states_n.arrays[1]));
    free_array(y);
    fusedrnn_frozen_free(frozen);
    free_problem(p);
  }
  context[0] = '\0';
}

/* Other threads keep the pool, whose team a step must neither want nor wait for. */
typedef struct {
  Problem* problem;
  atomic_int stop, rounds;
} Rival;

static void* keep_the_pool_busy(void* opaque) {
  Rival* rival = opaque;
  const fusedrnn_forward_args args = inference_of(rival->problem);
  do {
    fusedrnn_forward(&args);
    ++rival->rounds;
  } while (!rival->stop);
  return NULL;
}

static void test_beside_a_busy_pool(void) {
  Rival rival = {.problem = set_up("lstm", &kFormats[FLOAT64], MAX_B)};
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, keep_the_pool_busy, &rival) == 0);
  while (rival.rounds == 0) sched_yield();
  for (int round = 0; round < 20; ++round) {
    Problem* const p =
        round % 2 == 0 ? set_up("gru", &kFormats[FLOAT32], 4) : set_up_stack(&kFormats[FLOAT32], 4);
    test_steps(p);
    free_problem(p);
  }
  rival.stop = 1;
  pthread_join(thread, NULL);
  free_problem(rival.problem);
}

static void test_the_mode_of_the_thread(void) {
  Problem* const p = set_up("rnn_identity", &kFormats[FLOAT32], 1);
  fusedrnn_frozen* const frozen = freeze(p);
  const fusedrnn_forward_args args = inference_of(p);
  MUST(fusedrnn_forward(&args));
  Workspace workspace = new_workspace(frozen, 1);
  CHECK(fesetround(FE_UPWARD) == 0);
  check_steps(p, frozen, workspace.memory, 0, 1);
  CHECK(fegetround() == FE_UPWARD);
  fesetround(FE_TONEAREST);
  volatile float tiny = FLT_MIN;
  CHECK(tiny / 2 > 0); /* denormals are the caller's again */
  free_workspace(&workspace);
  fusedrnn_frozen_free(frozen);
  free_problem(p);
}

/* --- errors --- */

static void test_what_a_step_refuses(void) {
  Problem* const p = set_up("lstm", &kFormats[FLOAT32], 2);
  fusedrnn_frozen* const frozen = freeze(p);
  _Alignas(64) static unsigned char workspace[1 << 16];
  CHECK(fusedrnn_frozen_workspace(frozen, 2) < sizeof workspace);
  unsigned char *x = row_of(p->x, 0), *h = row_of(p->states.arrays[0], 0),
                *c = row_of(p->states.arrays[1], 0), *h_n = row_of(p->states_n.arrays[0], 0);
  const void* prev[] = {h, c};
  void* next[] = {h_n, row_of(p->states_n.arrays[1], 0)};
  CHECK(fusedrnn_frozen_workspace(NULL, 1) == 0);
  CHECK(strcmp(fusedrnn_last_error(), "frozen: expected an address, got null") == 0);
  clear_list(&p->states_n, 0x55);

  EXPECT_VALUE_ERROR(step(NULL, 2, x, prev, next, workspace),
                     "frozen: expected an address, got null");
  EXPECT_VALUE_ERROR(step(frozen, -1, x, prev, next, workspace),
                     "batch: expected at least 0, got a negative number");
  EXPECT_VALUE_ERROR(step(frozen, 2, NULL, prev, next, workspace),
                     "x: expected an address, got null");
  EXPECT_VALUE_ERROR(step(frozen, 2, x + 1, prev, next, workspace),
                     "x: expected an address aligned to its elements");
  EXPECT_VALUE_ERROR(step(frozen, 2, x, prev, NULL, workspace),
                     "next_states: expected an address, got null");
  EXPECT_VALUE_ERROR(step(frozen, 2, x, prev, next, NULL),
                     "workspace: expected an address, got null");
  EXPECT_VALUE_ERROR(step(frozen, 2, x, prev, next, workspace + 32),
                     "workspace: expected an address aligned to 64 bytes");
  const void* misaligned_prev[] = {h, c + 2};
  EXPECT_VALUE_ERROR(step(frozen, 2, x, misaligned_prev, next, workspace),
                     "prev_states: expected addresses aligned to their elements");
  void* null_next[] = {next[0], NULL};
  EXPECT_VALUE_ERROR(step(frozen, 2, x, prev, null_next, workspace),
                     "next_states: expected an address of each state, got null");
  void* misaligned_next[] = {h_n + 1, next[1]};
  EXPECT_VALUE_ERROR(step(frozen, 2, x, prev, misaligned_next, workspace),
                     "next_states: expected addresses aligned to their elements");
  CHECK(is_all(p->states_n.arrays[0], 0x55) && is_all(p->states_n.arrays[1], 0x55));

  /* Messages with and without memory of their own take turns. */
  CHECK(fusedrnn_set_num_threads(0) == FUSEDRNN_INVALID_VALUE);
  CHECK(strncmp(fusedrnn_last_error(), "n: expected a number of threads", 31) == 0);
  EXPECT_VALUE_ERROR(step(NULL, 2, x, prev, next, workspace),
                     "frozen: expected an address, got null");
  CHECK(step(frozen, 0, x, prev, next, workspace) == FUSEDRNN_OK);
  CHECK(strcmp(fusedrnn_last_error(), "frozen: expected an address, got null") ==
        0); /* as it was */
  CHECK(is_all(p->states_n.arrays[0], 0x55) && is_all(p->states_n.arrays[1], 0x55));
  const void* no_c[] = {h, NULL};
  CHECK(step(frozen, 2, x, no_c, next, workspace) == FUSEDRNN_OK);
  CHECK(step(frozen, 2, x, NULL, next, workspace) == FUSEDRNN_OK);
  fusedrnn_frozen_free(frozen);
  free_problem(p);
}

static void test_messages_of_freeze(Problem* p) {
  fusedrnn_frozen* const before = (fusedrnn_frozen*)(void*)p;
  fusedrnn_frozen* frozen = before;
  const DLTensor* const* const parameters = p->forward.parameters;
  EXPECT_VALUE_ERROR(fusedrnn_freeze(NULL, parameters, &frozen),
                     "network: expected an address, got null");
  EXPECT_VALUE_ERROR(fusedrnn_freeze(p->network, parameters, NULL),
                     "frozen: expected an address, got null");
  EXPECT_VALUE_ERROR(fusedrnn_freeze(p->network, NULL, &frozen),
                     "w_ih: expected an array, got none");
  const fusedrnn_run run = layer("gru", 0, I, H);
  fusedrnn_network* const tfloat32 =
      new_network(&run, 1, kFormats[FLOAT32].type, FUSEDRNN_COMPUTE_TFLOAT32);
  EXPECT_VALUE_ERROR(fusedrnn_freeze(tfloat32, parameters, &frozen),
                     "compute: expected what the CPU has (FUSEDRNN_COMPUTE_SAME or _BFLOAT16), got "
                     "FUSEDRNN_COMPUTE_TFLOAT32");
  fusedrnn_network_free(tfloat32);
  DLTensor** const weights = p->parameters.tensors;
  DLTensor *const w_ih = weights[0], *const w_hh = weights[1], *const b_hh = weights[3];
  weights[0] = NULL;
  EXPECT_VALUE_ERROR(fusedrnn_freeze(p->network, parameters, &frozen),
                     "w_ih: expected an array, got none");
  weights[0] = w_ih;
  weights[1] = w_ih;
  EXPECT_VALUE_ERROR(fusedrnn_freeze(p->network, parameters, &frozen),
                     "w_hh: expected shape (63, 21), got (63, 7)");
  weights[1] = w_hh;
  b_hh->dtype.bits = 64;
  EXPECT(fusedrnn_freeze(p->network, parameters, &frozen), FUSEDRNN_INVALID_TYPE,
         "b_hh: expected dtype float32 (the dtype of the network), got float64");
  b_hh->dtype.bits = 32;
  b_hh->device.device_type = kDLCUDA;
  EXPECT(fusedrnn_freeze(p->network, parameters, &frozen), FUSEDRNN_INVALID_TYPE,
         "b_hh: expected weights to freeze on the CPU (on a CUDA device pass them as they are to "
         "every call), got an array on cuda:0");
  b_hh->device.device_type = kDLCPU;
  CHECK(frozen == before);

  Problem* const stack = set_up_stack(&kFormats[FLOAT32], 2);
  stack->parameters.tensors[5] = NULL;
  EXPECT_VALUE_ERROR(fusedrnn_freeze(stack->network, stack->forward.parameters, &frozen),
                     "runs[1].w_hh: expected an array, got none");
  CHECK(frozen == before);
  free_problem(stack);
}

static void test_messages_of_calls(Problem* p) {
  fusedrnn_frozen* const frozen = freeze(p);
  const fusedrnn_forward_args good = without_weights(p);
  fusedrnn_forward_args args = good;
  EXPECT_VALUE_ERROR(fusedrnn_frozen_forward(NULL, &args), "frozen: expected an address, got null");
  EXPECT_VALUE_ERROR(fusedrnn_frozen_forward(frozen, NULL), "args: expected an address, got null");
  args.size = 8;
  CHECK(fusedrnn_frozen_forward(frozen, &args) == FUSEDRNN_INVALID_VALUE);
  CHECK(strncmp(fusedrnn_last_error(), "fusedrnn_forward_args: expected size = ", 39) == 0);
  args = good;
  args.network = p->network;
  EXPECT_VALUE_ERROR(fusedrnn_frozen_forward(frozen, &args),
                     "network: expected null (the weights are frozen), got an address");
  args = good;
  args.parameters = p->forward.parameters;
  EXPECT_VALUE_ERROR(fusedrnn_frozen_forward(frozen, &args),
                     "parameters: expected null (the weights are frozen), got an address");
  args = good;
  args.reserve = p->reserve;
  EXPECT_VALUE_ERROR(fusedrnn_frozen_forward(frozen, &args),
                     "reserve: expected null (the weights are frozen), got an address");
  args.reserve = NULL;
  args.reserve_bytes = 64;
  EXPECT_VALUE_ERROR(fusedrnn_frozen_forward(frozen, &args),
                     "reserve_bytes: expected 0 (the weights are frozen), got 64");
  args = good;
  args.stream = &args;
  EXPECT_VALUE_ERROR(fusedrnn_frozen_forward(frozen, &args),
                     "stream: expected null with arrays on the CPU, got a stream");
  args = good;
  args.x = args.y;
  EXPECT_VALUE_ERROR(fusedrnn_frozen_forward(frozen, &args),
                     "x: expected shape (5, 2, 7), got (5, 2, 21)");
  args = good;
  args.y = NULL;
  EXPECT_VALUE_ERROR(fusedrnn_frozen_forward(frozen, &args), "y: expected an array, got none");
  args = good;
  args.y = p->states_n.tensors[0];
  EXPECT_VALUE_ERROR(fusedrnn_frozen_forward(frozen, &args),
                     "y: expected shape (5, 2, 21), got (2, 21)");
  p->x->tensor.dtype.bits = 64;
  EXPECT(fusedrnn_frozen_forward(frozen, &good), FUSEDRNN_INVALID_TYPE,
         "x: expected dtype float32 (the dtype of the network), got float64");
  p->x->tensor.dtype.bits = 32;
  p->x->tensor.device.device_type = kDLCUDA;
  EXPECT(fusedrnn_frozen_forward(frozen, &good), FUSEDRNN_INVALID_TYPE,
         "x: expected an array on the CPU (the device of the frozen weights), got one on cuda:0");
  p->x->tensor.device.device_type = kDLCPU;
  void* const own = p->y->tensor.data;
  p->y->tensor.data = p->x->tensor.data;
  EXPECT_VALUE_ERROR(fusedrnn_frozen_forward(frozen, &good),
                     "y: expected memory apart from x, got overlapping memory");
  p->y->tensor.data = own;
  MUST(fusedrnn_frozen_forward(frozen, &good));

  CHECK(fusedrnn_frozen_workspace(frozen, -1) == 0);
  CHECK(strcmp(fusedrnn_last_error(), "batch: expected at least 0, got -1") == 0);
  CHECK(fusedrnn_frozen_workspace(frozen, INT64_MAX) == 0);
  CHECK(strcmp(fusedrnn_last_error(), "batch: expected fewer sequences, got 9223372036854775807") ==
        0);
  CHECK(fusedrnn_frozen_workspace(frozen, 0) >= 64);
  fusedrnn_frozen_free(frozen);
  fusedrnn_frozen_free(NULL);
}

int main(void) {
  if (!can_run()) return NOT_ON_THIS_MACHINE;
  test_counters();
  MUST(fusedrnn_set_num_threads(2));
  test_all_steps();
  test_networks_without_steps();
  test_beside_a_busy_pool();
  test_the_mode_of_the_thread();
  test_what_a_step_refuses();
  Problem* const p = set_up("gru", &kFormats[FLOAT32], 2);
  test_messages_of_freeze(p);
  test_messages_of_calls(p);
  free_problem(p);
  return result();
}
