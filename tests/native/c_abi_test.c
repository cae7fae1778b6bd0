/* The C ABI from C11: gradients against central differences, messages, empty problems, the library.
 */
#include "abi_support.h"

enum { T = 4, B = 3, I = 2, H = 3 };

static Problem* set_up(const char* cell, int reverse, int format) {
  fusedrnn_run run = layer(cell, 0, I, H);
  if (reverse) run = reversed(run);
  return new_problem(&run, 1, (Setting){&kFormats[format], T, B, 1, 0});
}

/* --- values --- */

static void test_gradients(void) {
  for (int cell = 0; cell < CELLS; ++cell) {
    for (int reverse = 0; reverse < 2; ++reverse) {
      snprintf(context, sizeof context, "gradients, %s, reverse %d", kCells[cell], reverse);
      Problem* const p = set_up(kCells[cell], reverse, FLOAT64);
      MUST(fusedrnn_forward(&p->forward));
      /* The outputs are the caller's: backward does not look at them. */
      clear_outputs(p);
      MUST(fusedrnn_backward(&p->backward));
      Array* const dx = new_sequence(&p->setting, I);
      copy_columns(dx, p->dx, 0);
      check_gradients(p);
      CHECK(same_bits(dx, p->dx));
      free_array(dx);
      free_problem(p);
    }
  }
  context[0] = '\0';
}

/* Without steps states pass through, bytes as they are, and the weights have gradients of zero. */
static void test_empty(const char* cell, int format, int64_t steps, int64_t batch, int masks) {
  snprintf(context, sizeof context, "empty, %s, %s, T %d, B %d", cell, kFormats[format].name,
           (int)steps, (int)batch);
  const fusedrnn_run run = layer(cell, 0, I, H);
  Problem* const p = new_problem(&run, 1, (Setting){&kFormats[format], steps, batch, masks, 1});
  if (masks) fill_bytes(p->lengths, 0);
  train(p);
  for (int i = 0; i < p->states.count; ++i) {
    CHECK(same_bits(p->states_n.arrays[i], p->states.arrays[i]));
    CHECK(same_bits(p->dstates.arrays[i], p->dstates_n.arrays[i]));
    CHECK(is_guarded(p->states_n.arrays[i]) && is_guarded(p->dstates.arrays[i]));
  }
  for (int i = 0; i < p->dparameters.count; ++i) {
    CHECK(is_all(p->dparameters.arrays[i], 0));
    CHECK(is_guarded(p->dparameters.arrays[i]));
  }
  p->forward.states = NULL;
  p->backward.dstates_n = NULL;
  train(p);
  for (int i = 0; i < p->states.count; ++i) {
    CHECK(is_all(p->states_n.arrays[i], 0) && is_all(p->dstates.arrays[i], 0));
  }
  free_problem(p);
  context[0] = '\0';
}

/* --- messages --- */

static fusedrnn_status infer(const Problem* p) {
  const fusedrnn_forward_args args = inference_of(p);
  return fusedrnn_forward(&args);
}

static void test_messages_of_args(Problem* p) {
  char message[128];
  EXPECT_VALUE_ERROR(fusedrnn_forward(NULL), "args: expected an address, got null");
  EXPECT_VALUE_ERROR(fusedrnn_backward(NULL), "args: expected an address, got null");

  fusedrnn_forward_args forward = p->forward;
  fusedrnn_backward_args backward = p->backward;
  forward.network = NULL;
  backward.network = NULL;
  EXPECT_VALUE_ERROR(fusedrnn_forward(&forward), "network: expected an address, got null");
  EXPECT_VALUE_ERROR(fusedrnn_backward(&backward), "network: expected an address, got null");

  /* Of a struct of another size nothing else is read. */
  const size_t sizes[] = {0, 8, sizeof forward - 8, sizeof forward + 8};
  for (int i = 0; i < 4; ++i) {
    fusedrnn_forward_args no_forward;
    memset(&no_forward, 0xff, sizeof no_forward);
    no_forward.size = sizes[i];
    snprintf(message, sizeof message,
             "fusedrnn_forward_args: expected size = %zu (its sizeof), got %zu",
             sizeof(fusedrnn_forward_args), sizes[i]);
    EXPECT_VALUE_ERROR(fusedrnn_forward(&no_forward), message);
  }
  fusedrnn_backward_args no_backward;
  memset(&no_backward, 0xff, sizeof no_backward);
  no_backward.size = 16;
  snprintf(message, sizeof message,
           "fusedrnn_backward_args: expected size = %zu (its sizeof), got 16",
           sizeof(fusedrnn_backward_args));
  EXPECT_VALUE_ERROR(fusedrnn_backward(&no_backward), message);

  forward = p->forward;
  forward.x = NULL;
  EXPECT_VALUE_ERROR(fusedrnn_forward(&forward), "x: expected an array, got none");
  forward = p->forward;
  forward.y = NULL;
  EXPECT_VALUE_ERROR(fusedrnn_forward(&forward), "y: expected an array, got none");
  forward = p->forward;
  forward.parameters = NULL;
  EXPECT_VALUE_ERROR(fusedrnn_forward(&forward), "w_ih: expected an array, got none");
  backward = p->backward;
  backward.x = NULL;
  EXPECT_VALUE_ERROR(fusedrnn_backward(&backward), "x: expected an array, got none");
  backward = p->backward;
  backward.parameters = NULL;
  EXPECT_VALUE_ERROR(fusedrnn_backward(&backward), "w_ih: expected an array, got none");
}

static void test_messages_of_tensors(Problem* p) {
  DLTensor *const x = &p->x->tensor, *const y = &p->y->tensor;
  DLTensor* const w_hh = p->parameters.tensors[1];
  p->parameters.tensors[1] = p->parameters.tensors[0];
  EXPECT_VALUE_ERROR(infer(p), "w_hh: expected shape (12, 3), got (12, 2)");
  EXPECT_VALUE_ERROR(fusedrnn_backward(&p->backward), "w_hh: expected shape (12, 3), got (12, 2)");
  p->parameters.tensors[1] = NULL;
  EXPECT_VALUE_ERROR(infer(p), "w_hh: expected an array, got none");
  p->parameters.tensors[1] = w_hh;

  DLTensor* const dw_hh = p->dparameters.tensors[1];
  p->dparameters.tensors[1] = p->dparameters.tensors[0];
  EXPECT_VALUE_ERROR(fusedrnn_backward(&p->backward), "dw_hh: expected shape (12, 3), got (12, 2)");
  p->dparameters.tensors[1] = dw_hh;

  int64_t strides[] = {1, T * B, T};
  x->strides = strides;
  EXPECT_VALUE_ERROR(infer(p), "x: expected a last axis of stride 1, got stride 4");
  x->strides = NULL;

  x->byte_offset = 4;
  EXPECT_VALUE_ERROR(infer(p), "x: expected memory aligned to 8 bytes, got a misaligned address");
  x->byte_offset = 0;

  void* const memory = x->data;
  x->data = NULL;
  EXPECT_VALUE_ERROR(infer(p), "x: expected memory of shape (4, 3, 2), got a null pointer");
  x->data = memory;

  x->ndim = 2;
  EXPECT_VALUE_ERROR(infer(p), "x: expected a 3-dimensional array [T, B, I], got shape (4, 3)");
  x->ndim = 9;
  EXPECT_VALUE_ERROR(infer(p), "x: expected at most 8 dimensions, got 9");
  x->ndim = -1;
  EXPECT_VALUE_ERROR(infer(p), "x: expected a shape, got -1 dimensions without one");
  x->ndim = 3;
  p->x->shape[1] = -3;
  x->shape = p->x->shape;
  EXPECT_VALUE_ERROR(infer(p), "x: expected dimensions of at least 0, got shape (4, -3, 2)");
  p->x->shape[1] = B;
  x->shape = NULL;
  EXPECT_VALUE_ERROR(infer(p), "x: expected a shape, got 3 dimensions without one");
  x->shape = p->x->shape;
  p->x->shape[2] = I + 1;
  EXPECT_VALUE_ERROR(infer(p), "x: expected shape (4, 3, 2), got (4, 3, 3)");
  p->x->shape[2] = I;
  char message[128];
  snprintf(message, sizeof message, "x: T = %lld, B = 3, I = 2, H = 3 are too large",
           (long long)INT64_MAX);
  p->x->shape[0] = INT64_MAX;
  EXPECT_VALUE_ERROR(infer(p), message);
  p->x->shape[0] = T;

  x->device.device_type = kDLCUDA;
  EXPECT(infer(p), FUSEDRNN_INVALID_TYPE,
         "w_ih: expected an array on cuda:0 (the device of x), got one on the CPU");
  x->device.device_type = kDLMetal;
  EXPECT(infer(p), FUSEDRNN_INVALID_TYPE,
         "x: expected an array on the CPU or a CUDA device, got one on metal:0");
  x->device.device_type = kDLCPU;
  w_hh->device.device_type = kDLCUDA;
  EXPECT(infer(p), FUSEDRNN_INVALID_TYPE,
         "w_hh: expected an array on the CPU (the device of x), got one on cuda:0");
  w_hh->device.device_type = kDLCPU;

  x->dtype.lanes = 2;
  EXPECT(infer(p), FUSEDRNN_INVALID_TYPE,
         "x: expected dtype float32, float64, bfloat16 or float16, got float64 with 2 lanes");
  x->dtype.lanes = 1;
  x->dtype.bits = 32;
  EXPECT(infer(p), FUSEDRNN_INVALID_TYPE,
         "x: expected dtype float64 (the dtype of the network), got float32");
  x->dtype.bits = 64;
  w_hh->dtype.bits = 32;
  EXPECT(infer(p), FUSEDRNN_INVALID_TYPE,
         "w_hh: expected dtype float64 (the dtype of x), got float32");
  w_hh->dtype.bits = 64;

  int64_t overlapping[] = {0, H, 1};
  y->strides = overlapping;
  EXPECT_VALUE_ERROR(infer(p),
                     "y: expected rows that do not overlap, got strides that make them overlap");
  y->strides = NULL;
}

static void test_messages_of_masks(Problem* p) {
  DLTensor *const lengths = &p->lengths->tensor, *const resets = &p->resets->tensor;
  int32_t* const second = (int32_t*)(void*)element_of(p->lengths, 0, 1);
  const int32_t before = *second;
  *second = T + 1;
  EXPECT_VALUE_ERROR(infer(p), "lengths: expected values from 0 to T = 4, got 5 at index 1");
  *second = -1;
  EXPECT_VALUE_ERROR(infer(p), "lengths: expected values from 0 to T = 4, got -1 at index 1");
  *second = before;
  lengths->dtype = (DLDataType){kDLFloat, 32, 1};
  EXPECT(infer(p), FUSEDRNN_INVALID_TYPE, "lengths: expected an integer dtype, got float32");
  lengths->dtype = (DLDataType){kDLInt, 32, 1};
  p->lengths->shape[0] = B + 1;
  EXPECT_VALUE_ERROR(infer(p), "lengths: expected shape (3,), got (4,)");
  p->lengths->shape[0] = B;
  resets->dtype = (DLDataType){kDLInt, 8, 1};
  EXPECT(infer(p), FUSEDRNN_INVALID_TYPE, "resets: expected dtype bool or uint8, got int8");
  resets->dtype = (DLDataType){kDLBool, 8, 1};
  p->resets->shape[0] = T - 1;
  EXPECT_VALUE_ERROR(infer(p), "resets: expected shape (4, 3), got (3, 3)");
  p->resets->shape[0] = T;

  /* Any strides; resets backwards in time and back again. */
  MUST(infer(p));
  Array* const y = new_sequence(&p->setting, H);
  copy_columns(y, p->y, 0);
  uint8_t reversed_in_time[T * B];
  for (int t = 0; t < T; ++t) memcpy(reversed_in_time + (T - 1 - t) * B, row_of(p->resets, t), B);
  int64_t spread[2 * B] = {0}, stride = 2, backwards[] = {-B, 1};
  for (int b = 0; b < B; ++b) {
    int32_t length;
    memcpy(&length, element_of(p->lengths, 0, b), sizeof length);
    spread[2 * b] = length;
  }
  lengths->data = spread;
  lengths->dtype.bits = 64;
  lengths->strides = &stride;
  resets->data = reversed_in_time + (T - 1) * B;
  resets->strides = backwards;
  clear_outputs(p);
  MUST(infer(p));
  CHECK(same_bits(y, p->y));
  lengths->data = row_of(p->lengths, 0);
  lengths->dtype.bits = 32;
  lengths->strides = NULL;
  resets->data = row_of(p->resets, 0);
  resets->strides = NULL;
  free_array(y);
}

static void test_messages(void) {
  Problem* const p = set_up("lstm", 0, FLOAT64);
  test_messages_of_args(p);
  test_messages_of_tensors(p);
  test_messages_of_masks(p);
  free_problem(p);
}

static void test_compute(void) {
  /* Of bfloat16, this is what it computes in anyway: the same network. */
  const fusedrnn_run run = layer("gru", 0, I, H);
  static const Format in_its_own = {
      "bfloat16", {kDLBfloat, 16, 1}, FUSEDRNN_COMPUTE_BFLOAT16, 1e-2};
  Problem* const p = set_up("gru", 0, BFLOAT16);
  fusedrnn_network* const same = new_network(&run, 1, in_its_own.type, in_its_own.compute);
  MUST(fusedrnn_forward(&p->forward));
  p->backward.network = same;
  MUST(fusedrnn_backward(&p->backward));
  fusedrnn_network_free(same);
  free_problem(p);

  Problem* const floats = set_up("gru", 0, FLOAT32);
  fusedrnn_network* const int8 =
      new_network(&run, 1, kFormats[FLOAT32].type, FUSEDRNN_COMPUTE_INT8);
  fusedrnn_forward_args args = inference_of(floats);
  args.network = int8;
  EXPECT_VALUE_ERROR(
      fusedrnn_forward(&args),
      "compute: expected what is there without frozen weights, got FUSEDRNN_COMPUTE_INT8");
  fusedrnn_network_free(int8);
  fusedrnn_network* const tfloat32 =
      new_network(&run, 1, kFormats[FLOAT32].type, FUSEDRNN_COMPUTE_TFLOAT32);
  args.network = tfloat32;
  EXPECT_VALUE_ERROR(fusedrnn_forward(&args),
                     "compute: expected what the CPU has (FUSEDRNN_COMPUTE_SAME or _BFLOAT16), got "
                     "FUSEDRNN_COMPUTE_TFLOAT32");
  fusedrnn_network_free(tfloat32);
  free_problem(floats);
}

/* stream and allocator. */
static void test_fields_of_devices(void) {
  Problem* const p = set_up("lstm", 0, FLOAT64);
  const fusedrnn_allocator allocator = {0};
  fusedrnn_forward_args forward = p->forward;
  forward.stream = &forward;
  EXPECT_VALUE_ERROR(fusedrnn_forward(&forward),
                     "stream: expected null with arrays on the CPU, got a stream");
  forward.stream = NULL;
  forward.allocator = &allocator;
  EXPECT_VALUE_ERROR(fusedrnn_forward(&forward),
                     "allocator: expected null with arrays on the CPU, got an allocator");
  MUST(fusedrnn_forward(&p->forward));
  fusedrnn_backward_args backward = p->backward;
  backward.stream = &backward;
  EXPECT_VALUE_ERROR(fusedrnn_backward(&backward),
                     "stream: expected null with arrays on the CPU, got a stream");
  backward.stream = NULL;
  backward.allocator = &allocator;
  EXPECT_VALUE_ERROR(fusedrnn_backward(&backward),
                     "allocator: expected null with arrays on the CPU, got an allocator");
  free_problem(p);
}

static void test_library(void) {
  CHECK(strcmp(fusedrnn_version(), FUSEDRNN_VERSION) == 0);
  CHECK(fusedrnn_abi_version() == FUSEDRNN_ABI_VERSION);
  CHECK(fusedrnn_set_num_threads(2) == FUSEDRNN_OK);
  CHECK(fusedrnn_get_num_threads() == 2);
  CHECK(fusedrnn_set_num_threads(0) == FUSEDRNN_INVALID_VALUE);
  CHECK(fusedrnn_get_num_threads() == 2);
  fusedrnn_release_memory();
  CHECK(fusedrnn_release_memory() == 0);
}

int main(void) {
  CHECK(strcmp(fusedrnn_last_error(), "") == 0);
  if (!can_run()) return NOT_ON_THIS_MACHINE;
  test_library();
  test_gradients();
  for (int cell = 0; cell < CELLS; ++cell) {
    for (int format = 0; format < FORMATS; ++format) {
      test_empty(kCells[cell], format, 0, B, 1);
      test_empty(kCells[cell], format, 0, B, 0);
      test_empty(kCells[cell], format, T, 0, 0);
      test_empty(kCells[cell], format, 0, 0, 1);
    }
  }
  test_messages();
  test_compute();
  test_fields_of_devices();
  return result();
}
