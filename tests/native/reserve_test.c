/* Reserves from C11: as large as was said, only read by backward, movable, and known again. */
#include <pthread.h>

#include "abi_support.h"

static const DLDevice kCpu = {kDLCPU, 0};

/* Two layers in both directions of unlike cells: pieces of every kind. */
static Problem* new_stack(Setting setting) {
  const fusedrnn_run runs[] = {
      layer("lstm", 0, 3, 5), placed(reversed(layer("gru", 0, 3, 4)), 0, 5),
      layer("gru_reset_before", 1, 9, 6), placed(reversed(layer("rnn_tanh", 1, 9, 3)), 0, 6)};
  return new_problem(runs, 4, setting);
}

static Problem* new_layer(const char* cell, Setting setting) {
  const fusedrnn_run run = layer(cell, 0, 3, 4);
  return new_problem(&run, 1, setting);
}

static const Setting kFloats = {&kFormats[FLOAT32], 4, 3, 1, 0};
static const Setting kWithoutMasks = {&kFormats[FLOAT32], 4, 3, 0, 0};

/* All gradients of a problem, kept for a comparison. */
typedef struct {
  Array* dx;
  List dparameters, dstates;
} Gradients;

static void keep_list(List* to, const Problem* p, const List* from) {
  for (int i = 0; i < from->count; ++i) {
    const Array* const a = from->arrays[i];
    add_array(to, &p->setting, a->tensor.ndim, a->shape);
    copy_columns(to->arrays[i], a, 0);
  }
}

/* Takes them out of the problem's arrays, which are cleared. */
static Gradients take_gradients(Problem* p) {
  Gradients kept = {.dx = new_sequence(&p->setting, p->info.input_size)};
  copy_columns(kept.dx, p->dx, 0);
  keep_list(&kept.dparameters, p, &p->dparameters);
  keep_list(&kept.dstates, p, &p->dstates);
  clear_outputs(p);
  return kept;
}
static int are_gradients_of(const Gradients* kept, const Problem* p) {
  return same_bits(kept->dx, p->dx) && same_lists(&kept->dparameters, &p->dparameters) &&
         same_lists(&kept->dstates, &p->dstates);
}
static void free_gradients(Gradients* kept) {
  free_array(kept->dx);
  free_list(&kept->dparameters);
  free_list(&kept->dstates);
}
static int nothing_written(const Problem* p) {
  int clear = is_all(p->y, 0xff) && is_all(p->dx, 0xff);
  const List* const lists[] = {&p->states_n, &p->dparameters, &p->dstates};
  for (int k = 0; k < 3; ++k) {
    for (int i = 0; i < lists[k]->count; ++i) clear &= is_all(lists[k]->arrays[i], 0xff);
  }
  return clear;
}

/* --- what a size is --- */

static void test_sizes(void) {
  Problem* const p = new_stack(kFloats);
  size_t bytes = 1, twice = 0, none = 0;
  MUST(fusedrnn_reserve_bytes(p->network, kCpu, 4, 3, &bytes));
  MUST(fusedrnn_reserve_bytes(p->network, kCpu, 8, 3, &twice));
  CHECK(bytes == p->reserve_bytes && twice > bytes);
  MUST(fusedrnn_reserve_bytes(p->network, kCpu, 0, 3, &none));
  CHECK(none > 0 && none < bytes); /* its header */
  MUST(fusedrnn_reserve_bytes(p->network, kCpu, 4, 0, &none));
  CHECK(none > 0 && none < bytes);
  MUST(fusedrnn_reserve_bytes(p->network, (DLDevice){kDLCUDAHost, 3}, 4, 3, &twice));
  CHECK(bytes == twice); /* the CPU's memory, too */

  twice = 55;
  EXPECT_VALUE_ERROR(fusedrnn_reserve_bytes(NULL, kCpu, 4, 3, &twice),
                     "network: expected an address, got null");
  EXPECT_VALUE_ERROR(fusedrnn_reserve_bytes(p->network, kCpu, 4, 3, NULL),
                     "bytes: expected an address, got null");
  EXPECT_VALUE_ERROR(
      fusedrnn_reserve_bytes(p->network, kCpu, -1, 3, &twice),
      "steps, batch: expected at least 0, and fewer than memory can name, got -1, 3");
  EXPECT_VALUE_ERROR(
      fusedrnn_reserve_bytes(p->network, kCpu, 4, -3, &twice),
      "steps, batch: expected at least 0, and fewer than memory can name, got 4, -3");
  char message[128];
  snprintf(message, sizeof message,
           "steps, batch: expected at least 0, and fewer than memory can name, got %lld, 3",
           (long long)INT64_MAX);
  EXPECT_VALUE_ERROR(fusedrnn_reserve_bytes(p->network, kCpu, INT64_MAX, 3, &twice), message);
  EXPECT(fusedrnn_reserve_bytes(p->network, (DLDevice){kDLMetal, 0}, 4, 3, &twice),
         FUSEDRNN_INVALID_TYPE,
         "device: expected an array on the CPU or a CUDA device, got one on metal:0");
  CHECK(twice == 55);
  free_problem(p);

  /* What cannot be trained has none. */
  const fusedrnn_run run = layer("gru", 0, 2, 3);
  const struct {
    int32_t compute;
    const char* message;
  } untrained[] = {
      {FUSEDRNN_COMPUTE_INT8,
       "compute: expected what is there without frozen weights, got FUSEDRNN_COMPUTE_INT8"},
      {FUSEDRNN_COMPUTE_TFLOAT32,
       "compute: expected what the CPU has (FUSEDRNN_COMPUTE_SAME or _BFLOAT16), got "
       "FUSEDRNN_COMPUTE_TFLOAT32"}};
  for (int i = 0; i < 2; ++i) {
    fusedrnn_network* const network =
        new_network(&run, 1, kFormats[FLOAT32].type, untrained[i].compute);
    EXPECT_VALUE_ERROR(fusedrnn_reserve_bytes(network, kCpu, 4, 3, &twice), untrained[i].message);
    fusedrnn_network_free(network);
  }
}

/* --- what holds of every reserve --- */

static void test_reserve(Setting setting) {
  Problem* const p = new_stack(setting);
  MUST(fusedrnn_set_num_threads(1));
  MUST(fusedrnn_forward(&p->forward));
  CHECK(reserve_is_guarded(p));
  unsigned char* const before = allocate(p->reserve_bytes);
  memcpy(before, p->reserve, p->reserve_bytes);
  MUST(fusedrnn_backward(&p->backward));
  CHECK(memcmp(before, p->reserve, p->reserve_bytes) == 0);
  Gradients kept = take_gradients(p);
  MUST(fusedrnn_backward(&p->backward));
  CHECK(are_gradients_of(&kept, p));
  CHECK(memcmp(before, p->reserve, p->reserve_bytes) == 0);

  /* Two threads leave and read the same, and another network of the same runs knows it. */
  MUST(fusedrnn_set_num_threads(2));
  clear_outputs(p);
  MUST(fusedrnn_backward(&p->backward));
  CHECK(are_gradients_of(&kept, p));
  memset(p->reserve, 0xff, p->reserve_bytes);
  MUST(fusedrnn_forward(&p->forward));
  CHECK(reserve_is_guarded(p));
  Problem* const other = new_stack(setting);
  p->backward.network = other->network;
  clear_outputs(p);
  MUST(fusedrnn_backward(&p->backward));
  CHECK(are_gradients_of(&kept, p));

  /* Elsewhere in memory, of another alignment; where it was there is something else now. */
  unsigned char* const elsewhere = allocate(p->reserve_bytes + 64 + 32);
  unsigned char* at = elsewhere;
  while ((uintptr_t)at % 64 != 32) ++at;
  memcpy(at, p->reserve, p->reserve_bytes);
  memset(p->reserve, 0xff, p->reserve_bytes);
  p->backward.reserve = at;
  clear_outputs(p);
  MUST(fusedrnn_backward(&p->backward));
  CHECK(are_gradients_of(&kept, p));

  /* What lengths and resets said stands in the reserve: now they say nonsense. */
  if (setting.masks) {
    fill_bytes(p->lengths, 0x7f);
    fill_bytes(p->resets, 0x55);
    p->lengths->tensor.data = NULL;
    p->resets->tensor.ndim = -1;
    clear_outputs(p);
    MUST(fusedrnn_backward(&p->backward));
    CHECK(are_gradients_of(&kept, p));
    p->backward.resets = NULL; /* one of them is enough */
    MUST(fusedrnn_backward(&p->backward));
  }

  free(elsewhere);
  free(before);
  free_gradients(&kept);
  free_problem(other);
  free_problem(p);
}

static void test_reserves(void) {
  for (int f = 0; f < FORMATS; ++f) {
    for (int masks = 0; masks < 2; ++masks) {
      snprintf(context, sizeof context, "reserve, %s, masks %d", kFormats[f].name, masks);
      test_reserve((Setting){&kFormats[f], 5, 3, masks, 0});
      test_reserve((Setting){&kFormats[f], 1, 9, masks, 2});
      test_reserve((Setting){&kFormats[f], 3, 1, masks, 0});
    }
  }
  context[0] = '\0';
}

/* Without steps or sequences it is its header, and known again. */
static void test_empty(int64_t steps, int64_t batch) {
  Problem* const p = new_stack((Setting){&kFormats[FLOAT64], steps, batch, 0, 0});
  train(p);
  CHECK(reserve_is_guarded(p));
  for (int i = 0; i < p->states.count; ++i) {
    CHECK(same_bits(p->states.arrays[i], p->states_n.arrays[i]));
    CHECK(same_bits(p->dstates_n.arrays[i], p->dstates.arrays[i]));
  }
  for (int i = 0; i < p->dparameters.count; ++i) CHECK(is_all(p->dparameters.arrays[i], 0));
  memset(p->reserve, 0, p->reserve_bytes);
  EXPECT_VALUE_ERROR(fusedrnn_backward(&p->backward),
                     "reserve: expected what a forward call of this network with these sizes left, "
                     "got something else");
  free_problem(p);
}

/* --- what is no reserve --- */

static const char* const kOther =
    "reserve: expected what a forward call of this network with these sizes left, got something "
    "else";

static void test_byte_counts(void) {
  Problem* const p = new_stack(kFloats);
  MUST(fusedrnn_forward(&p->forward));
  clear_outputs(p);
  unsigned char* const before = allocate(p->reserve_bytes);
  memcpy(before, p->reserve, p->reserve_bytes);
  const size_t right = p->reserve_bytes;
  const size_t wrong[] = {0,
                          1,
                          16,
                          right - 1,
                          right + 1,
                          right - 64,
                          right + 64,
                          right * 2,
                          SIZE_MAX / 2,
                          SIZE_MAX / 2 + 1,
                          SIZE_MAX / 2 - 64,
                          SIZE_MAX,
                          SIZE_MAX - 63};
  char message[128];
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; ++i) {
    snprintf(message, sizeof message,
             "reserve: expected %zu bytes, for this network and these sizes, got %zu", right,
             wrong[i]);
    fusedrnn_forward_args forward = p->forward;
    forward.reserve_bytes = wrong[i];
    EXPECT_VALUE_ERROR(fusedrnn_forward(&forward), message);
    fusedrnn_backward_args backward = p->backward;
    backward.reserve_bytes = wrong[i];
    EXPECT_VALUE_ERROR(fusedrnn_backward(&backward), message);
    if (wrong[i] == 0) continue;
    forward.reserve = NULL;
    snprintf(message, sizeof message, "reserve: expected an address of %zu bytes, got null",
             wrong[i]);
    EXPECT_VALUE_ERROR(fusedrnn_forward(&forward), message);
    backward.reserve = NULL;
    EXPECT_VALUE_ERROR(fusedrnn_backward(&backward), "reserve: expected an address, got null");
  }
  fusedrnn_forward_args forward = p->forward;
  fusedrnn_backward_args backward = p->backward;
  backward.reserve = NULL;
  EXPECT_VALUE_ERROR(fusedrnn_backward(&backward), "reserve: expected an address, got null");
  for (int offset = 1; offset < 16; offset *= 2) {
    forward.reserve = p->reserve + offset;
    backward.reserve = p->reserve + offset;
    const char* const misaligned =
        "reserve: expected memory aligned to 16 bytes, got a misaligned address";
    EXPECT_VALUE_ERROR(fusedrnn_forward(&forward), misaligned);
    EXPECT_VALUE_ERROR(fusedrnn_backward(&backward), misaligned);
  }
  CHECK(memcmp(before, p->reserve, right) == 0 && nothing_written(p));
  free(before);
  free_problem(p);
}

/* A backward call of `p` with what `maker` left: refused whatever the number of its bytes. */
static void expect_foreign(Problem* p, Problem* maker) {
  MUST(fusedrnn_forward(&maker->forward));
  /* As many bytes as it asks for, of which those that are there come from elsewhere. */
  memset(p->reserve, 0x11, p->reserve_bytes);
  const size_t common =
      p->reserve_bytes < maker->reserve_bytes ? p->reserve_bytes : maker->reserve_bytes;
  memcpy(p->reserve, maker->reserve, common);
  EXPECT_VALUE_ERROR(fusedrnn_backward(&p->backward), kOther);
  CHECK(nothing_written(p));
}

static void test_foreign_reserves(void) {
  Problem* const p = new_layer("rnn_tanh", kFloats);
  Setting setting = kFloats;
  Problem* other = new_layer("rnn_sigmoid", setting); /* as many bytes */
  CHECK(other->reserve_bytes == p->reserve_bytes);
  expect_foreign(p, other);
  free_problem(other);

  const fusedrnn_run backwards = reversed(layer("rnn_tanh", 0, 3, 4));
  other = new_problem(&backwards, 1, setting);
  expect_foreign(p, other);
  free_problem(other);

  const fusedrnn_run inputs = layer("rnn_tanh", 0, 2, 4), units = layer("rnn_tanh", 0, 3, 5);
  other = new_problem(&inputs, 1, setting);
  expect_foreign(p, other);
  free_problem(other);
  other = new_problem(&units, 1, setting);
  expect_foreign(p, other);
  free_problem(other);

  const fusedrnn_run two[] = {layer("rnn_tanh", 0, 3, 4), placed(layer("rnn_tanh", 0, 3, 4), 0, 4)};
  other = new_problem(two, 2, setting);
  expect_foreign(p, other);
  free_problem(other);

  setting.steps = kFloats.batch;
  setting.batch = kFloats.steps;
  other = new_layer("rnn_tanh", setting);
  expect_foreign(p, other);
  free_problem(other);

  setting = kFloats;
  setting.steps += 1;
  other = new_layer("rnn_tanh", setting);
  expect_foreign(p, other);
  free_problem(other);

  for (int f = FLOAT64; f < FORMATS; ++f) {
    setting = kFloats;
    setting.format = &kFormats[f];
    other = new_layer("rnn_tanh", setting);
    expect_foreign(p, other);
    free_problem(other);
  }

  /* Offsets alone. */
  const fusedrnn_run low[] = {layer("gru", 0, 3, 2), placed(layer("gru", 1, 1, 2), 0, 0)};
  const fusedrnn_run high[] = {layer("gru", 0, 3, 2), placed(layer("gru", 1, 1, 2), 1, 0)};
  Problem* const reads_low = new_problem(low, 2, kFloats);
  Problem* const reads_high = new_problem(high, 2, kFloats);
  CHECK(reads_low->reserve_bytes == reads_high->reserve_bytes);
  expect_foreign(reads_low, reads_high);
  free_problem(reads_low);
  free_problem(reads_high);
  free_problem(p);
}

static void test_damaged_reserves(void) {
  Problem* const p = new_stack(kFloats);
  MUST(fusedrnn_forward(&p->forward));
  clear_outputs(p);
  /* Every bit of the header counts: it is 64 bytes. */
  for (int bit = 0; bit < 64 * 8; ++bit) {
    p->reserve[bit / 8] ^= (unsigned char)(1 << bit % 8);
    CHECK(fusedrnn_backward(&p->backward) == FUSEDRNN_INVALID_VALUE);
    p->reserve[bit / 8] ^= (unsigned char)(1 << bit % 8);
  }
  CHECK(nothing_written(p));
  MUST(fusedrnn_backward(&p->backward));

  /* Behind a header that is right: wrong numbers, but no crash. */
  const int bytes[] = {0, 0xff, 0x55, 0x01};
  for (int i = 0; i < 4; ++i) {
    memset(p->reserve + 64, bytes[i], p->reserve_bytes - 64);
    MUST(fusedrnn_backward(&p->backward));
  }
  CHECK(reserve_is_guarded(p));
  memset(p->reserve, 0, p->reserve_bytes);
  EXPECT_VALUE_ERROR(fusedrnn_backward(&p->backward), kOther);
  free_problem(p);
}

static void test_masks_given_or_not(void) {
  Problem* const masked = new_stack(kFloats);
  MUST(fusedrnn_forward(&masked->forward));
  clear_outputs(masked);
  masked->backward.lengths = masked->backward.resets = NULL;
  EXPECT_VALUE_ERROR(fusedrnn_backward(&masked->backward),
                     "lengths, mask, resets: expected those of the forward call, got none");
  CHECK(nothing_written(masked));

  Problem* const bare = new_stack(kWithoutMasks);
  MUST(fusedrnn_forward(&bare->forward));
  clear_outputs(bare);
  bare->backward.lengths = &masked->lengths->tensor;
  EXPECT_VALUE_ERROR(fusedrnn_backward(&bare->backward),
                     "lengths, mask, resets: expected none, as in the forward call, got some");
  bare->backward.lengths = NULL;
  bare->backward.resets = &masked->resets->tensor;
  EXPECT_VALUE_ERROR(fusedrnn_backward(&bare->backward),
                     "lengths, mask, resets: expected none, as in the forward call, got some");
  CHECK(nothing_written(bare));
  free_problem(bare);
  free_problem(masked);
}

/* --- without a reserve, and with one for many --- */

static void test_inference(void) {
  Problem* const p = new_stack(kFloats);
  MUST(fusedrnn_forward(&p->forward));
  Array* const y = new_sequence(&p->setting, p->info.output_size);
  copy_columns(y, p->y, 0);
  List states_n = {0};
  keep_list(&states_n, p, &p->states_n);
  memset(p->reserve, UNTOUCHED, p->reserve_bytes);
  clear_outputs(p);
  const fusedrnn_forward_args inference = inference_of(p);
  MUST(fusedrnn_forward(&inference));
  CHECK(same_bits(y, p->y) && same_lists(&states_n, &p->states_n));
  for (size_t i = 0; i < p->reserve_bytes; ++i) CHECK(p->reserve[i] == UNTOUCHED);
  free_list(&states_n);
  free_array(y);
  free_problem(p);
}

typedef struct {
  Problem* problem; /* whose outputs are this thread's */
  int rounds;
} Worker;

static void* run_backward(void* opaque) {
  const Worker* const worker = opaque;
  for (int i = 0; i < worker->rounds; ++i) {
    clear_outputs(worker->problem);
    if (fusedrnn_backward(&worker->problem->backward) != FUSEDRNN_OK) return NULL;
  }
  return NULL;
}

static void test_many_threads_read_one(void) {
  Problem* const p = new_stack(kFloats);
  train(p);
  Gradients kept = take_gradients(p);
  Problem* workers[3];
  pthread_t threads[3];
  Worker work[3];
  for (int i = 0; i < 3; ++i) {
    workers[i] = new_stack(kFloats);
    fusedrnn_backward_args* const args = &workers[i]->backward;
    args->network = p->network;
    args->x = p->backward.x;
    args->parameters = p->backward.parameters;
    args->dy = p->backward.dy;
    args->dstates_n = p->backward.dstates_n;
    args->reserve = p->reserve;
    work[i] = (Worker){workers[i], 20};
    CHECK(pthread_create(&threads[i], NULL, run_backward, &work[i]) == 0);
  }
  for (int i = 0; i < 3; ++i) {
    CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(are_gradients_of(&kept, workers[i]));
    free_problem(workers[i]);
  }
  free_gradients(&kept);
  free_problem(p);
}

int main(void) {
  if (!can_run()) return NOT_ON_THIS_MACHINE;
  test_sizes();
  test_reserves();
  test_empty(0, 3);
  test_empty(4, 0);
  test_byte_counts();
  test_foreign_reserves();
  test_damaged_reserves();
  test_masks_given_or_not();
  test_inference();
  test_many_threads_read_one();
  return result();
}
