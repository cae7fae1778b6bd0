/* What a call writes, from C11: its outputs and nothing beside them, those that are wanted, and
 * never what it still reads. */
#include "abi_support.h"

/* --- nothing beside the outputs --- */

static void check_guards(const Problem* p) {
  const Array* const arrays[] = {p->x, p->y, p->dx, p->dy};
  for (int i = 0; i < 4; ++i) CHECK(is_guarded(arrays[i]));
  const List* const lists[] = {&p->parameters, &p->dparameters, &p->states,
                               &p->states_n,   &p->dstates,     &p->dstates_n};
  for (int k = 0; k < 6; ++k) {
    for (int i = 0; i < lists[k]->count; ++i) CHECK(is_guarded(lists[k]->arrays[i]));
  }
  CHECK(reserve_is_guarded(p));
}

/* A number that is not there is NaN: all has been written. */
static void check_written(const Array* a) {
  for (int64_t r = 0; r < a->rows; ++r) {
    for (int64_t c = 0; c < a->row_length; ++c) CHECK(!isnan(value_of(a, r, c)));
  }
}

static void check_all_written(const Problem* p) {
  check_written(p->y);
  check_written(p->dx);
  const List* const lists[] = {&p->states_n, &p->dparameters, &p->dstates};
  for (int k = 0; k < 3; ++k) {
    for (int i = 0; i < lists[k]->count; ++i) check_written(lists[k]->arrays[i]);
  }
}

/* The same weights, packed: a run and, of one that is forward, steps. */
static void check_frozen_guards(Problem* p, int steps) {
  fusedrnn_frozen* frozen = NULL;
  MUST(fusedrnn_freeze(p->network, p->forward.parameters, &frozen));
  fusedrnn_forward_args args = inference_of(p);
  args.network = NULL;
  args.parameters = NULL;
  clear_outputs(p);
  MUST(fusedrnn_frozen_forward(frozen, &args));
  check_guards(p);
  check_written(p->y);
  if (!steps) {
    fusedrnn_frozen_free(frozen);
    return;
  }

  const int64_t B = p->setting.batch;
  Setting dense = p->setting;
  dense.gap = 0;
  dense.steps = 1;
  Array* const x = new_sequence(&dense, p->info.input_size);
  fill_random(x, 1);
  List states = {0};
  const void* prev[MAX_STATES];
  void* next[MAX_STATES];
  for (int i = 0; i < p->states.count; ++i) {
    const int64_t shape[] = {B, p->states.arrays[i]->row_length};
    add_array(&states, &dense, 2, shape);
    fill_random(states.arrays[i], 1);
    prev[i] = next[i] = row_of(states.arrays[i], 0);
  }
  const size_t bytes = fusedrnn_frozen_workspace(frozen, B);
  CHECK(bytes >= 64);
  unsigned char* const block = allocate(bytes + 64 + 2 * GUARD_BYTES);
  memset(block, UNTOUCHED, bytes + 64 + 2 * GUARD_BYTES);
  unsigned char* workspace = block + GUARD_BYTES;
  while ((uintptr_t)workspace % 64 != 0) ++workspace;
  for (int k = 0; k < 2; ++k) {
    MUST(fusedrnn_frozen_step(frozen, B, row_of(x, 0), prev, next, workspace));
  }
  CHECK(is_guarded(x));
  for (int i = 0; i < states.count; ++i) {
    CHECK(is_guarded(states.arrays[i]));
    check_written(states.arrays[i]);
  }
  for (const unsigned char* byte = block; byte < block + bytes + 64 + 2 * GUARD_BYTES; ++byte) {
    if (byte < workspace || byte >= workspace + bytes) CHECK(*byte == UNTOUCHED);
  }
  free(block);
  free_list(&states);
  free_array(x);
  fusedrnn_frozen_free(frozen);
}

static void test_guards(void) {
  static const int64_t sizes[] = {1, 3, 5, 7, 9, 13, 17, 31, 33};
  enum { SIZES = sizeof sizes / sizeof sizes[0] };
  static const Format int8 = {"float32 in int8", {kDLFloat, 32, 1}, FUSEDRNN_COMPUTE_INT8, 1e-2};
  for (int cell = 0; cell < CELLS; ++cell) {
    for (int k = 0; k < SIZES; ++k) {
      for (int f = 0; f <= FORMATS; ++f) {
        const Format* const format = f < FORMATS ? &kFormats[f] : &int8;
        /* Every number of units meets other numbers of inputs and sequences with each format. */
        const int64_t H = sizes[k], I = sizes[(2 * k + f + 1) % SIZES];
        const int64_t B = sizes[(4 * k + 3 * f + cell) % SIZES], T = 1 + (k + f + cell) % 3;
        snprintf(context, sizeof context, "%s, %s, T %d, B %d, I %d, H %d", kCells[cell],
                 format->name, (int)T, (int)B, (int)I, (int)H);
        const fusedrnn_run run = layer(kCells[cell], 0, I, H), reverse = reversed(run);
        const Setting setting = {format, T, B, k % 2, 1 + f % 3};
        Problem* const p = new_problem((k + f) % 3 == 0 ? &reverse : &run, 1, setting);
        if (f < FORMATS) {
          train(p);
          check_guards(p);
          check_all_written(p);
          clear_outputs(p);
          const fusedrnn_forward_args inference = inference_of(p);
          MUST(fusedrnn_forward(&inference));
          check_guards(p);
          check_written(p->y);
        }
        check_frozen_guards(p, (k + f) % 3 != 0);
        free_problem(p);
      }
    }
  }
  context[0] = '\0';
}

/* Rows between runs begin wherever the widths before them end. */
static void test_guards_of_stacks(void) {
  static const int64_t sizes[] = {1, 3, 7, 9, 17, 33};
  enum { SIZES = sizeof sizes / sizeof sizes[0] };
  for (int f = 0; f < FORMATS; ++f) {
    for (int k = 0; k < SIZES; ++k) {
      snprintf(context, sizeof context, "stack %d, %s", k, kFormats[f].name);
      const int64_t H = sizes[k], K = sizes[(k + 1) % SIZES], I = sizes[(k + 3) % SIZES];
      const fusedrnn_run runs[] = {layer("lstm", 0, I, H),
                                   placed(reversed(layer("gru", 0, I, K)), 0, H),
                                   placed(layer("rnn_tanh", 1, K, I), H, 0),
                                   placed(reversed(layer("gru_reset_before", 1, H, K)), 0, I)};
      Problem* const p = new_problem(runs, 4, (Setting){&kFormats[f], 3, 5, k % 2, 1});
      train(p);
      check_guards(p);
      check_all_written(p);
      free_problem(p);
    }
  }
  context[0] = '\0';
}

/* --- outputs that are wanted --- */

static Problem* new_pair(Setting setting) {
  const fusedrnn_run runs[] = {
      layer("lstm", 0, 3, 4), placed(reversed(layer("gru", 0, 3, 5)), 0, 4), layer("gru", 1, 9, 2)};
  return new_problem(runs, 3, setting);
}

/* Of the list that was given to the call, what was named has the bits of `all`, the rest is
 * untouched. */
static void check_list(const List* list, const List* all, int given) {
  for (int i = 0; i < list->count; ++i) {
    if (given && list->tensors[i] != NULL) {
      CHECK(same_bits(list->arrays[i], all->arrays[i]));
    } else {
      CHECK(is_all(list->arrays[i], 0xff));
    }
  }
}

static void leave_out(List* list, int keep) {
  for (int i = 0; i < list->count; ++i) {
    list->tensors[i] = keep >> i & 1 ? &list->arrays[i]->tensor : NULL;
  }
}

static void test_optional_outputs(void) {
  const Setting setting = {&kFormats[FLOAT32], 4, 3, 1, 1};
  Problem* const all = new_pair(setting);
  Problem* const p = new_pair(setting);
  copy_columns(p->x, all->x, 0);
  copy_columns(p->dy, all->dy, 0);
  const struct {
    List *to, *from;
  } inputs[] = {{&p->parameters, &all->parameters},
                {&p->states, &all->states},
                {&p->dstates_n, &all->dstates_n}};
  for (int k = 0; k < 3; ++k) {
    for (int i = 0; i < inputs[k].to->count; ++i) {
      copy_columns(inputs[k].to->arrays[i], inputs[k].from->arrays[i], 0);
    }
  }
  train(all);

  /* States. */
  for (int keep = 0; keep < 1 << p->states_n.count; ++keep) {
    leave_out(&p->states_n, keep);
    const fusedrnn_forward_args inference = inference_of(p);
    for (int k = 0; k < 2; ++k) {
      clear_outputs(p);
      MUST(fusedrnn_forward(k == 0 ? &inference : &p->forward));
      CHECK(same_bits(p->y, all->y));
      check_list(&p->states_n, &all->states_n, 1);
    }
  }
  p->forward.states_n = NULL;
  clear_outputs(p);
  MUST(fusedrnn_forward(&p->forward));
  CHECK(same_bits(p->y, all->y));
  check_list(&p->states_n, &all->states_n, 0);

  /* Gradients: each alone, all but each, and none. */
  const int count = p->dparameters.count + p->dstates.count + 1;
  for (int which = 0; which < 2 * count + 3; ++which) {
    snprintf(context, sizeof context, "optional gradients %d", which);
    const int only = which < count, lists = which < 2 * count;
    const int bit = 1 << which % count, keep = lists ? (only ? bit : ~bit) : 0;
    leave_out(&p->dparameters, keep);
    leave_out(&p->dstates, keep >> p->dparameters.count);
    p->backward.dx = keep >> (count - 1) & 1 ? &p->dx->tensor : NULL;
    const int no_parameters = which == 2 * count || which == 2 * count + 2;
    const int no_states = which > 2 * count;
    p->backward.dparameters = no_parameters ? NULL : p->dparameters.tensors;
    p->backward.dstates = no_states ? NULL : p->dstates.tensors;
    clear_outputs(p);
    MUST(fusedrnn_backward(&p->backward));
    check_list(&p->dparameters, &all->dparameters, !no_parameters);
    check_list(&p->dstates, &all->dstates, !no_states);
    if (p->backward.dx != NULL) {
      CHECK(same_bits(p->dx, all->dx));
    } else {
      CHECK(is_all(p->dx, 0xff));
    }
    check_guards(p);
  }
  context[0] = '\0';
  free_problem(p);
  free_problem(all);
}

/* What is not given is zero. */
static void test_optional_inputs(void) {
  const Setting setting = {&kFormats[FLOAT64], 4, 3, 1, 0};
  Problem* const p = new_pair(setting);
  Problem* const zeros = new_pair(setting);
  copy_columns(zeros->x, p->x, 0);
  copy_columns(zeros->dy, p->dy, 0);
  for (int i = 0; i < p->parameters.count; ++i) {
    copy_columns(zeros->parameters.arrays[i], p->parameters.arrays[i], 0);
    if (i % 4 < 2) continue; /* a weight */
    fill_bytes(zeros->parameters.arrays[i], 0);
    p->parameters.tensors[i] = NULL;
  }
  clear_list(&zeros->states, 0);
  clear_list(&zeros->dstates_n, 0);
  train(zeros);
  for (int lists = 0; lists < 2; ++lists) {
    for (int i = 0; i < p->states.count; ++i) {
      p->states.tensors[i] = NULL;
      p->dstates_n.tensors[i] = NULL;
    }
    if (lists == 1) {
      p->forward.states = NULL;
      p->backward.dstates_n = NULL;
    }
    clear_outputs(p);
    train(p);
    CHECK(same_bits(p->y, zeros->y) && same_bits(p->dx, zeros->dx));
    CHECK(same_lists(&p->states_n, &zeros->states_n));
    CHECK(same_lists(&p->dparameters, &zeros->dparameters));
    CHECK(same_lists(&p->dstates, &zeros->dstates));
  }
  fill_bytes(zeros->dy, 0);
  p->backward.dy = NULL;
  MUST(fusedrnn_backward(&p->backward));
  MUST(fusedrnn_backward(&zeros->backward));
  CHECK(same_bits(p->dx, zeros->dx));
  CHECK(same_lists(&p->dparameters, &zeros->dparameters));
  CHECK(same_lists(&p->dstates, &zeros->dstates));
  free_problem(p);
  free_problem(zeros);
}

/* --- states in their own place --- */

static void test_in_place(const char* cell, Setting setting, int64_t H) {
  const fusedrnn_run runs[] = {layer(cell, 0, 5, H), placed(reversed(layer(cell, 0, 5, H)), 0, H),
                               layer(cell, 1, 2 * H, H)};
  Problem* const p = new_problem(runs, 3, setting);
  train(p);
  List states_n = {0}, dstates = {0}, states = {0};
  Array* const y = new_sequence(&setting, H);
  copy_columns(y, p->y, 0);
  const struct {
    List *to, *from;
  } copies[] = {{&states_n, &p->states_n}, {&dstates, &p->dstates}, {&states, &p->states}};
  for (int k = 0; k < 3; ++k) {
    for (int i = 0; i < copies[k].from->count; ++i) {
      const Array* const a = copies[k].from->arrays[i];
      add_array(copies[k].to, &setting, 2, a->shape);
      copy_columns(copies[k].to->arrays[i], a, 0);
    }
  }
  fusedrnn_forward_args args = p->forward;
  args.states_n = p->states.tensors;
  for (int inference = 0; inference < 2; ++inference) {
    for (int i = 0; i < states.count; ++i) {
      copy_columns(p->states.arrays[i], states.arrays[i], 0);
    }
    if (inference) {
      args.reserve = NULL;
      args.reserve_bytes = 0;
    }
    fill_bytes(p->y, 0xff);
    MUST(fusedrnn_forward(&args));
    CHECK(same_bits(y, p->y));
    CHECK(same_lists(&states_n, &p->states));
  }
  /* Backward, from the reserve of a call whose first states are gone. */
  p->backward.dstates = p->dstates_n.tensors;
  MUST(fusedrnn_backward(&p->backward));
  CHECK(same_lists(&dstates, &p->dstates_n));
  check_guards(p);
  free_list(&states_n);
  free_list(&dstates);
  free_list(&states);
  free_array(y);
  free_problem(p);
}

static void test_states_in_place(void) {
  for (int cell = 0; cell < CELLS; ++cell) {
    for (int f = 0; f < FORMATS; ++f) {
      for (int masks = 0; masks < 2; ++masks) {
        snprintf(context, sizeof context, "in place, %s, %s, masks %d", kCells[cell],
                 kFormats[f].name, masks);
        test_in_place(kCells[cell], (Setting){&kFormats[f], 1, 4, masks, 0}, 9);
        test_in_place(kCells[cell], (Setting){&kFormats[f], 3, 9, masks, 1}, 33);
        test_in_place(kCells[cell], (Setting){&kFormats[f], 0, 3, 0, masks}, 3);
      }
    }
    /* Large enough for two threads. */
    test_in_place(kCells[cell], (Setting){&kFormats[FLOAT32], 3, 1, 0, 0}, 300);
    test_in_place(kCells[cell], (Setting){&kFormats[FLOAT32], 3, 40, 1, 0}, 130);
  }
  context[0] = '\0';
}

/* --- overlaps --- */

/* A tensor of a call. Two of one `place` may be the same elements. */
typedef struct {
  const char* name;
  DLTensor* tensor;
  int place; /* -1: it has none */
} Named;

typedef struct {
  int count;
  Named all[16];
} Names;

static void add_name(Names* names, const char* name, Array* array, int place) {
  names->all[names->count++] = (Named){name, &array->tensor, place};
}

typedef fusedrnn_status (*Call)(const Problem* p);
static fusedrnn_status call_forward(const Problem* p) { return fusedrnn_forward(&p->forward); }
static fusedrnn_status call_backward(const Problem* p) { return fusedrnn_backward(&p->backward); }

static void expect_overlap(Call call, const Problem* p, const char* output, const char* other) {
  char message[128];
  snprintf(message, sizeof message, "%s: expected memory apart from %s, got overlapping memory",
           output, other);
  snprintf(context, sizeof context, "%s over %s", output, other);
  EXPECT_VALUE_ERROR(call(p), message);
  context[0] = '\0';
}

/* Of two outputs the later one is blamed. */
static void check_outputs_apart(Call call, const Problem* p, const Names* outputs) {
  for (int later = 1; later < outputs->count; ++later) {
    DLTensor* const tensor = outputs->all[later].tensor;
    void* const own = tensor->data;
    for (int other = 0; other < later; ++other) {
      tensor->data = outputs->all[other].tensor->data;
      expect_overlap(call, p, outputs->all[later].name, outputs->all[other].name);
    }
    tensor->data = own;
  }
}

static void check_inputs_apart(Call call, const Problem* p, const Names* outputs,
                               const Names* inputs) {
  for (int o = 0; o < outputs->count; ++o) {
    const Named output = outputs->all[o];
    void* const own = output.tensor->data;
    for (int i = 0; i < inputs->count; ++i) {
      const Named input = inputs->all[i];
      if (output.place >= 0 && output.place == input.place) continue;
      output.tensor->data = input.tensor->data;
      expect_overlap(call, p, output.name, input.name);
    }
    output.tensor->data = own;
  }
}

/* Each of them amid the reserve. */
static void check_reserve_apart(Call call, Problem* p, const Names* names, int reserve_is_output) {
  for (int i = 0; i < names->count; ++i) {
    const Named one = names->all[i];
    void* const own = one.tensor->data;
    unsigned char before[64];
    memcpy(before, p->reserve + 64, sizeof before);
    memset(p->reserve + 64, 0, sizeof before); /* lengths, too */
    one.tensor->data = p->reserve + 64;
    expect_overlap(call, p, reserve_is_output ? "reserve" : one.name,
                   reserve_is_output ? one.name : "reserve");
    one.tensor->data = own;
    memcpy(p->reserve + 64, before, sizeof before);
  }
}

static void test_overlaps(void) {
  const fusedrnn_run run = layer("lstm", 0, 3, 4);
  Problem* const p = new_problem(&run, 1, (Setting){&kFormats[FLOAT32], 4, 3, 1, 0});
  enum { H, C };
  Names outputs = {0}, inputs = {0};
  const char* const parameters[] = {"w_ih", "w_hh", "b_ih", "b_hh"};
  add_name(&outputs, "y", p->y, -1);
  add_name(&outputs, "h_n", p->states_n.arrays[H], H);
  add_name(&outputs, "c_n", p->states_n.arrays[C], C);
  add_name(&inputs, "x", p->x, -1);
  for (int i = 0; i < 4; ++i) add_name(&inputs, parameters[i], p->parameters.arrays[i], -1);
  add_name(&inputs, "h0", p->states.arrays[H], H);
  add_name(&inputs, "c0", p->states.arrays[C], C);
  add_name(&inputs, "lengths", p->lengths, -1);
  add_name(&inputs, "resets", p->resets, -1);
  check_outputs_apart(call_forward, p, &outputs);
  check_inputs_apart(call_forward, p, &outputs, &inputs);
  check_reserve_apart(call_forward, p, &outputs, 1);
  check_reserve_apart(call_forward, p, &inputs, 1);
  CHECK(is_all(p->y, 0xff)); /* nothing has been written */
  MUST(fusedrnn_forward(&p->forward));

  const char* const gradients[] = {"dw_ih", "dw_hh", "db_ih", "db_hh"};
  outputs.count = inputs.count = 0;
  add_name(&outputs, "dx", p->dx, -1);
  for (int i = 0; i < 4; ++i) add_name(&outputs, gradients[i], p->dparameters.arrays[i], -1);
  add_name(&outputs, "dh0", p->dstates.arrays[H], H);
  add_name(&outputs, "dc0", p->dstates.arrays[C], C);
  add_name(&inputs, "x", p->x, -1);
  for (int i = 0; i < 4; ++i) add_name(&inputs, parameters[i], p->parameters.arrays[i], -1);
  add_name(&inputs, "dy", p->dy, -1);
  add_name(&inputs, "dh_n", p->dstates_n.arrays[H], H);
  add_name(&inputs, "dc_n", p->dstates_n.arrays[C], C);
  check_outputs_apart(call_backward, p, &outputs);
  check_inputs_apart(call_backward, p, &outputs, &inputs);
  check_reserve_apart(call_backward, p, &outputs, 0);
  CHECK(is_all(p->dx, 0xff));
  MUST(fusedrnn_backward(&p->backward));
  free_problem(p);
}

/* By one element at either end, and by none. */
static void test_neighbours(void) {
  const fusedrnn_run run = layer("gru", 0, 3, 4);
  Problem* const p = new_problem(&run, 1, (Setting){&kFormats[FLOAT64], 4, 3, 1, 0});
  unsigned char* const x = row_of(p->x, 0);
  const size_t item = p->x->item, x_bytes = row_bytes(p->x) * (size_t)p->x->rows;
  const size_t y_bytes = row_bytes(p->y) * (size_t)p->y->rows;
  DLTensor* const y = &p->y->tensor;
  void* const own = y->data;
  y->data = x + x_bytes - item;
  expect_overlap(call_forward, p, "y", "x");
  y->data = x + item - y_bytes;
  expect_overlap(call_forward, p, "y", "x");
  y->data = x + x_bytes;
  MUST(fusedrnn_forward(&p->forward));
  y->data = x - y_bytes;
  MUST(fusedrnn_forward(&p->forward));
  y->data = own;

  /* lengths with a stride: what lies between them is anybody's, but not they. */
  _Alignas(8) int32_t spread[3 * 64] = {4, [64] = 2, [128] = 3};
  int64_t stride = 64;
  p->lengths->tensor.data = spread;
  p->lengths->tensor.strides = &stride;
  DLTensor* const h_n = p->states_n.tensors[0];
  void* const own_h_n = h_n->data;
  int64_t h_strides[] = {32, 1};
  h_n->strides = h_strides;
  h_n->data = spread + 2; /* right behind each length, aligned */
  MUST(fusedrnn_forward(&p->forward));
  CHECK(spread[0] == 4 && spread[64] == 2 && spread[128] == 3);
  h_n->data = spread + 58; /* up to the second one, and over it */
  expect_overlap(call_forward, p, "h_n", "lengths");
  h_n->data = own_h_n;
  h_n->strides = NULL;
  free_problem(p);
}

/* The same memory, but not each element in its place. */
static void test_states_out_of_place(void) {
  const fusedrnn_run run = layer("lstm", 0, 3, 4);
  enum { B = 3, H = 4, T = 4 };
  Problem* const p = new_problem(&run, 1, (Setting){&kFormats[FLOAT32], T, B, 0, 0});
  DLTensor *const h0 = p->states.tensors[0], *const h_n = p->states_n.tensors[0];
  DLTensor *const dh_n = p->dstates_n.tensors[0], *const dh0 = p->dstates.tensors[0];
  MUST(fusedrnn_forward(&p->forward));
  float memory[4 * B * H] = {0};
  int64_t dense[] = {H, 1}, backwards[] = {-H, 1}, wide[] = {2 * H, 1};
  const struct {
    int at;
    int64_t* strides;
    int refused;
  } places[] = {{0, dense, 0},  {1, dense, 1},     {H, dense, 1},
                {-1, dense, 1}, {B * H, dense, 0}, {-H, dense, 1},
                {0, wide, 1},   {H, wide, 1},      {2 * H, backwards, 1}};
  for (size_t i = 0; i < sizeof places / sizeof places[0]; ++i) {
    h0->data = dh_n->data = memory + B * H;
    h_n->data = dh0->data = memory + B * H + places[i].at;
    h0->strides = dh_n->strides = dense;
    h_n->strides = dh0->strides = places[i].strides;
    if (places[i].refused) {
      expect_overlap(call_forward, p, "h_n", "h0");
      expect_overlap(call_backward, p, "dh0", "dh_n");
    } else {
      MUST(fusedrnn_forward(&p->forward));
      MUST(fusedrnn_backward(&p->backward));
    }
  }
  /* Two views of the same elements, both backwards; and rows that lie between one another. */
  h0->data = dh_n->data = h_n->data = dh0->data = memory + B * H + 2 * H;
  h0->strides = dh_n->strides = h_n->strides = dh0->strides = backwards;
  MUST(fusedrnn_forward(&p->forward));
  MUST(fusedrnn_backward(&p->backward));
  h0->data = dh_n->data = memory;
  h_n->data = dh0->data = memory + H;
  h0->strides = dh_n->strides = h_n->strides = dh0->strides = wide;
  MUST(fusedrnn_forward(&p->forward));
  MUST(fusedrnn_backward(&p->backward));

  /* An output whose own rows overlap. */
  int64_t overlapping[] = {H - 1, 1}, still[] = {0, 1};
  h_n->strides = overlapping;
  EXPECT_VALUE_ERROR(fusedrnn_forward(&p->forward),
                     "h_n: expected rows that do not overlap, got strides that make them overlap");
  h_n->strides = still;
  EXPECT_VALUE_ERROR(fusedrnn_forward(&p->forward),
                     "h_n: expected rows that do not overlap, got strides that make them overlap");
  /* An input may: one row for all sequences. */
  h_n->strides = dense;
  h_n->data = memory + 2 * B * H;
  h0->strides = still;
  MUST(fusedrnn_forward(&p->forward));
  free_problem(p);
}

int main(void) {
  if (!can_run()) return NOT_ON_THIS_MACHINE;
  MUST(fusedrnn_set_num_threads(2));
  test_guards();
  test_guards_of_stacks();
  test_optional_outputs();
  test_optional_inputs();
  test_states_in_place();
  test_overlaps();
  test_neighbours();
  test_states_out_of_place();
  return result();
}
