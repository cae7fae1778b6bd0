/* States of every step and reset states from C11: each run's, with their gradients. */
#include "abi_support.h"

/* A problem, and what its calls may be given besides. */
typedef struct {
  Problem* problem;
  List sequences, dsequences, resets, dresets;
} Sequences;

static Sequences add_sequences(Problem* p) {
  Sequences all = {.problem = p};
  for (int32_t i = 0; i < p->info.num_states; ++i) {
    fusedrnn_array_info info;
    MUST(fusedrnn_network_state(p->network, i, &info));
    const int64_t shape[] = {p->setting.steps, p->setting.batch, info.shape[0]};
    add_array(&all.sequences, &p->setting, 3, shape);
    add_array(&all.dsequences, &p->setting, 3, shape);
    add_array(&all.resets, &p->setting, 1, shape + 2);
    add_array(&all.dresets, &p->setting, 1, shape + 2);
  }
  fill_list(&all.dsequences, 1);
  fill_list(&all.resets, 1);
  clear_list(&all.sequences, 0xff);
  clear_list(&all.dresets, 0xff);
  return all;
}

static void give(Sequences* all) {
  Problem* const p = all->problem;
  p->forward.reset_states = inputs_of(&all->resets);
  p->forward.state_sequences = all->sequences.tensors;
  p->backward.dstate_sequences = inputs_of(&all->dsequences);
  p->backward.dreset_states = all->dresets.tensors;
}

static void free_sequences(Sequences* all) {
  List* const lists[] = {&all->sequences, &all->dsequences, &all->resets, &all->dresets};
  for (int i = 0; i < 4; ++i) free_list(lists[i]);
  free_problem(all->problem);
}

/* Two layers of unlike cells, the first in both directions. */
static Problem* new_stack(Setting setting) {
  fusedrnn_run projected = layer("lstm_projection", 1, 7, 4);
  projected.projection_size = 3;
  const fusedrnn_run runs[] = {layer("lstm_peephole", 0, 3, 4),
                               placed(reversed(layer("gru_reset_before", 0, 3, 3)), 0, 4),
                               projected};
  return new_problem(runs, 3, setting);
}

static Problem* new_lstm(Setting setting) {
  const fusedrnn_run run = layer("lstm", 0, 3, 5);
  return new_problem(&run, 1, setting);
}

static const Setting kDoubles = {&kFormats[FLOAT64], 4, 3, 1, 2};

/* --- values --- */

/* The output is the last run's h, and a state after the last step that of some step. */
static void test_values(Setting setting) {
  Sequences all = add_sequences(new_stack(setting));
  Problem* const p = all.problem;
  train(p);
  List plain = {0};
  for (int i = 0; i < p->dparameters.count; ++i) {
    const Array* const a = p->dparameters.arrays[i];
    add_array(&plain, &setting, a->tensor.ndim, a->shape);
    copy_columns(plain.arrays[i], a, 0);
  }
  p->forward.state_sequences = all.sequences.tensors;
  train(p); /* what is shown besides changes nothing */
  CHECK(same_lists(&plain, &p->dparameters));
  CHECK(same_bits(p->y, all.sequences.arrays[3]));
  const int64_t T = setting.steps, B = setting.batch;
  const int reverse[] = {0, 0, 1, 0, 0};
  for (int i = 0; i < all.sequences.count; ++i) {
    const Array *const of_step = all.sequences.arrays[i], *const last = p->states_n.arrays[i];
    CHECK(is_guarded(of_step));
    for (int64_t b = 0; b < B; ++b) {
      int32_t length = (int32_t)T;
      if (setting.masks) memcpy(&length, element_of(p->lengths, 0, b), sizeof length);
      if (length == 0) continue;
      const int64_t end = reverse[i] ? 0 : length - 1;
      CHECK(memcmp(row_of(of_step, end * B + b), row_of(last, b), row_bytes(last)) == 0);
      for (int64_t t = length; t < T; ++t) {
        for (int64_t k = 0; k < of_step->row_length; ++k) {
          CHECK(value_of(of_step, t * B + b, k) == 0);
        }
      }
    }
  }
  free_list(&plain);
  free_sequences(&all);
}

/* --- gradients --- */

static double loss_with(Sequences* all) {
  Problem* const p = all->problem;
  double sum = loss_of(p);
  for (int i = 0; i < all->sequences.count; ++i) {
    const Array *const value = all->sequences.arrays[i], *const d = all->dsequences.arrays[i];
    for (int64_t r = 0; r < value->rows; ++r) {
      for (int64_t c = 0; c < value->row_length; ++c) {
        sum += value_of(value, r, c) * value_of(d, r, c);
      }
    }
  }
  return sum;
}

static void check_each(Sequences* all, const Array* variable, const Array* gradient) {
  const double step = 1e-5;
  for (int64_t r = 0; r < variable->rows; ++r) {
    for (int64_t c = 0; c < variable->row_length; ++c) {
      unsigned char* const element = element_of(variable, r, c);
      const double before = value_of(variable, r, c);
      store(element, variable->tensor.dtype, before + step);
      const double above = loss_with(all);
      store(element, variable->tensor.dtype, before - step);
      const double below = loss_with(all);
      store(element, variable->tensor.dtype, before);
      CHECK(fabs((above - below) / (2 * step) - value_of(gradient, r, c)) < 1e-8);
    }
  }
}

static void test_gradients(int32_t padding) {
  Sequences all = add_sequences(new_stack(kDoubles));
  Problem* const p = all.problem;
  give(&all);
  p->forward.padding = padding;
  train(p);
  check_each(&all, p->x, p->dx);
  for (int i = 0; i < p->parameters.count; ++i) {
    check_each(&all, p->parameters.arrays[i], p->dparameters.arrays[i]);
  }
  for (int i = 0; i < p->states.count; ++i) {
    check_each(&all, p->states.arrays[i], p->dstates.arrays[i]);
    check_each(&all, all.resets.arrays[i], all.dresets.arrays[i]);
    CHECK(is_guarded(all.dresets.arrays[i]));
  }
  free_sequences(&all);
}

/* Each alone gives what it gives beside the others. */
static void test_left_out(void) {
  Sequences all = add_sequences(new_stack(kDoubles)), some = add_sequences(new_stack(kDoubles));
  Problem *const p = all.problem, *const q = some.problem;
  q->forward.x = p->forward.x;
  q->forward.parameters = p->forward.parameters;
  q->forward.states = p->forward.states;
  give(&all);
  MUST(fusedrnn_forward(&p->forward));
  const int count = all.sequences.count;
  for (int kept = 0; kept < count; ++kept) {
    DLTensor* one[MAX_STATES] = {NULL};
    one[kept] = some.sequences.tensors[kept];
    q->forward.reset_states = p->forward.reset_states;
    q->forward.state_sequences = one;
    clear_list(&some.sequences, 0xff);
    MUST(fusedrnn_forward(&q->forward));
    for (int i = 0; i < count; ++i) {
      const Array* const got = some.sequences.arrays[i];
      CHECK(i == kept ? same_bits(got, all.sequences.arrays[i]) : is_all(got, 0xff));
    }
  }
  MUST(fusedrnn_backward(&p->backward));
  for (int kept = 0; kept < count; ++kept) {
    fusedrnn_backward_args args = p->backward;
    DLTensor* one[MAX_STATES] = {NULL};
    one[kept] = some.dresets.tensors[kept];
    args.dx = NULL;
    args.dparameters = NULL;
    args.dstates = NULL; /* nothing else is wanted */
    args.dreset_states = one;
    clear_list(&some.dresets, 0xff);
    MUST(fusedrnn_backward(&args));
    for (int i = 0; i < count; ++i) {
      const Array* const got = some.dresets.arrays[i];
      CHECK(i == kept ? same_bits(got, all.dresets.arrays[i]) : is_all(got, 0xff));
    }
  }
  free_sequences(&all);
  free_sequences(&some);
}

/* Nothing is cut: the gradients are zeros, without steps or sequences too. */
static void test_no_resets(int64_t steps, int64_t batch) {
  const Setting setting = {&kFormats[FLOAT32], steps, batch, 0, 0};
  Sequences all = add_sequences(new_stack(setting));
  give(&all);
  train(all.problem);
  for (int i = 0; i < all.dresets.count; ++i) CHECK(is_all(all.dresets.arrays[i], 0));
  free_sequences(&all);
}

/* --- what flows back --- */

static void test_flow(void) {
  Problem* const p = new_stack(kDoubles);
  train(p);
  const int64_t T = p->setting.steps, B = p->setting.batch;
  fusedrnn_network_info info;
  MUST(fusedrnn_network_describe(p->network, &info));
  const size_t count = (size_t)(info.num_states * T);
  double* const norms = allocate((count + 2) * sizeof *norms);
  const double guard = -1;
  norms[0] = norms[count + 1] = guard;
  int64_t shape[2] = {info.num_states, T};
  DLTensor flow = {norms + 1, {kDLCPU, 0}, 2, {kDLFloat, 64, 1}, shape, NULL, 0};
  fusedrnn_backward_args args = p->backward;
  args.flow = &flow;
  for (int limited = 0; limited < 2; ++limited) {
    args.clip_dh = limited ? 1e-3 : 0;
    memset(norms + 1, 0xff, count * sizeof *norms);
    MUST(fusedrnn_backward(&args));
    CHECK(norms[0] == guard && norms[count + 1] == guard);
    for (int32_t s = 0; s < info.num_states; ++s) {
      fusedrnn_array_info state;
      MUST(fusedrnn_network_state(p->network, s, &state));
      const double most = 1.0001e-3 * sqrt((double)(B * state.shape[0]));
      for (int64_t t = 0; t < T; ++t) {
        const double norm = norms[1 + s * T + t];
        CHECK(norm > 0 && norm < 1e3);
        if (limited && strcmp(state.name, "h") == 0) CHECK(norm <= most);
      }
    }
  }

  flow.dtype.bits = 32;
  EXPECT(fusedrnn_backward(&args), FUSEDRNN_INVALID_TYPE,
         "flow: expected dtype float64, got float32");
  flow.dtype.bits = 64;
  shape[1] = T + 1;
  CHECK(fusedrnn_backward(&args) == FUSEDRNN_INVALID_VALUE);
  CHECK(strncmp(fusedrnn_last_error(), "flow: expected shape", 20) == 0);
  shape[1] = T;
  flow.data = p->forward.x->data;
  CHECK(fusedrnn_backward(&args) == FUSEDRNN_INVALID_VALUE); /* over x */
  flow.data = norms + 1;
  args.clip_dh = -1;
  EXPECT_VALUE_ERROR(fusedrnn_backward(&args),
                     "clip_dh: expected 0, for none, or a finite number of at least 1e-30, got -1");
  args.clip_dh = NAN;
  CHECK(fusedrnn_backward(&args) == FUSEDRNN_INVALID_VALUE);
  free(norms);
  free_problem(p);
}

/* --- gates --- */

static fusedrnn_gates_args gates_of(const Problem* p, int32_t run, Array* gates) {
  return (fusedrnn_gates_args){.size = sizeof(fusedrnn_gates_args),
                               .network = p->network,
                               .run = run,
                               .masked = p->setting.masks,
                               .reserve = p->reserve,
                               .reserve_bytes = p->reserve_bytes,
                               .gates = &gates->tensor};
}

static void test_gate_names(void) {
  const struct {
    const char *cell, *names;
  } cells[] = {{"lstm", "ifgo"}, {"lstm_coupled", "igo"},     {"lstm_peephole", "ifgo"},
               {"gru", "rzn"},   {"gru_reset_before", "rzn"}, {"rnn_tanh", ""}};
  for (size_t i = 0; i < sizeof cells / sizeof cells[0]; ++i) {
    const fusedrnn_run run = layer(cells[i].cell, 0, 2, 3);
    fusedrnn_network* const network = new_network(&run, 1, kFormats[FLOAT32].type, 0);
    const int count = (int)strlen(cells[i].names);
    for (int k = 0; k < count; ++k) {
      const char* const name = fusedrnn_network_gate(network, 0, k);
      CHECK(name != NULL && strlen(name) == 1 && name[0] == cells[i].names[k]);
    }
    CHECK(fusedrnn_network_gate(network, 0, count) == NULL);
    CHECK(fusedrnn_network_gate(network, 0, -1) == NULL);
    CHECK(fusedrnn_network_gate(network, 1, 0) == NULL);
    CHECK(fusedrnn_network_gate(network, -1, 0) == NULL);
    fusedrnn_network_free(network);
  }
  CHECK(fusedrnn_network_gate(NULL, 0, 0) == NULL);
}

/* Of an LSTM h = o * tanh(c), and c = f * c' + i * g; zeros where a step does not exist. */
static void test_gates(Setting setting) {
  Sequences all = add_sequences(new_lstm(setting));
  Problem* const p = all.problem;
  p->forward.state_sequences = all.sequences.tensors;
  MUST(fusedrnn_forward(&p->forward));
  const int64_t T = setting.steps, B = setting.batch, H = 5, shape[] = {T, B, 4 * H};
  Array* const gates = new_array(setting.format->type, 3, shape, setting.gap);
  fill_bytes(gates, 0xff);
  const fusedrnn_gates_args args = gates_of(p, 0, gates);
  MUST(fusedrnn_reserve_gates(&args));
  CHECK(is_guarded(gates));
  const double bound = setting.format == &kFormats[FLOAT64] ? 1e-12 : 3e-2;
  const Array* const c = all.sequences.arrays[1];
  for (int64_t b = 0; b < B; ++b) {
    int32_t length = (int32_t)T;
    if (setting.masks) memcpy(&length, element_of(p->lengths, 0, b), sizeof length);
    for (int64_t t = 0; t < T; ++t) {
      const int64_t row = t * B + b;
      const int cut = setting.masks && *element_of(p->resets, t, b) != 0;
      for (int64_t k = 0; k < H; ++k) {
        const double i = value_of(gates, row, k), f = value_of(gates, row, H + k),
                     g = value_of(gates, row, 2 * H + k), o = value_of(gates, row, 3 * H + k);
        if (t >= length) {
          CHECK(i == 0 && f == 0 && g == 0 && o == 0);
          continue;
        }
        const double before = cut     ? 0
                              : t > 0 ? value_of(c, row - B, k)
                                      : value_of(p->states.arrays[1], b, k);
        CHECK(fabs(f * before + i * g - value_of(c, row, k)) < bound);
        CHECK(fabs(o * tanh(value_of(c, row, k)) - value_of(p->y, row, k)) < bound);
      }
    }
  }
  free_array(gates);
  free_sequences(&all);
}

static void test_refused_gates(void) {
  Problem* const p = new_stack(kDoubles);
  MUST(fusedrnn_forward(&p->forward));
  const int64_t shape[] = {4, 3, 16};
  Array* const gates = new_array(kFormats[FLOAT64].type, 3, shape, 0);
  fill_bytes(gates, 0xff);
  const fusedrnn_gates_args good = gates_of(p, 0, gates);
  fusedrnn_gates_args args = good;
  args.run = 3;
  EXPECT_VALUE_ERROR(fusedrnn_reserve_gates(&args), "run: expected 0 to 2, got 3");
  args.run = 1;
  EXPECT_VALUE_ERROR(fusedrnn_reserve_gates(&args),
                     "gates: expected shape (4, 3, 9), got (4, 3, 16)");
  args = good;
  args.masked = 0;
  EXPECT_VALUE_ERROR(fusedrnn_reserve_gates(&args),
                     "lengths, mask, resets: expected those of the forward call, got none");
  args = good;
  args.reserve = NULL;
  EXPECT_VALUE_ERROR(fusedrnn_reserve_gates(&args), "reserve: expected an address, got null");
  args = good;
  args.gates = NULL;
  CHECK(fusedrnn_reserve_gates(&args) == FUSEDRNN_INVALID_VALUE);
  args = good;
  ++args.size;
  CHECK(fusedrnn_reserve_gates(&args) == FUSEDRNN_INVALID_VALUE);
  CHECK(fusedrnn_reserve_gates(NULL) == FUSEDRNN_INVALID_VALUE);
  args = good;
  memset(p->reserve, 0, 64);
  EXPECT_VALUE_ERROR(fusedrnn_reserve_gates(&args),
                     "reserve: expected what a forward call of this network with these sizes left, "
                     "got something else");
  CHECK(is_all(gates, 0xff));
  free_array(gates);
  free_problem(p);
  const fusedrnn_run run = layer("rnn_tanh", 0, 3, 4);
  Problem* const plain = new_problem(&run, 1, kDoubles);
  MUST(fusedrnn_forward(&plain->forward));
  args = gates_of(plain, 0, plain->y);
  EXPECT_VALUE_ERROR(fusedrnn_reserve_gates(&args),
                     "run: expected one of a cell with gates, got rnn_tanh");
  free_problem(plain);
}

/* --- what is refused --- */

static void test_refused(void) {
  const Setting setting = {&kFormats[FLOAT32], 4, 3, 1, 0};
  Sequences all = add_sequences(new_lstm(setting));
  Problem* const p = all.problem;
  give(&all);
  DLTensor* const c = all.sequences.tensors[1];
  c->shape[2] = 4;
  EXPECT_VALUE_ERROR(fusedrnn_forward(&p->forward), "c: expected shape (4, 3, 5), got (4, 3, 4)");
  c->shape[2] = 5;
  DLTensor* const reset = all.resets.tensors[0];
  reset->shape[0] = 4;
  EXPECT_VALUE_ERROR(fusedrnn_forward(&p->forward), "reset_h: expected shape (5,), got (4,)");
  reset->shape[0] = 5;
  void* const memory = c->data;
  c->data = p->y->tensor.data;
  const fusedrnn_status status = fusedrnn_forward(&p->forward);
  CHECK(status == FUSEDRNN_INVALID_VALUE && strncmp(fusedrnn_last_error(), "c: ", 3) == 0);
  c->data = memory;
  c->data = reset->data;
  CHECK(fusedrnn_forward(&p->forward) == FUSEDRNN_INVALID_VALUE);
  c->data = memory;
  CHECK(is_all(p->y, 0xff) && is_all(all.sequences.arrays[0], 0xff));
  MUST(fusedrnn_forward(&p->forward));
  DLTensor* const dc = all.dsequences.tensors[1];
  dc->shape[0] = 3;
  EXPECT_VALUE_ERROR(fusedrnn_backward(&p->backward),
                     "dc: expected shape (4, 3, 5), got (3, 3, 5)");
  dc->shape[0] = 4;
  DLTensor* const dreset = all.dresets.tensors[1];
  dreset->dtype.bits = 64;
  EXPECT(fusedrnn_backward(&p->backward), FUSEDRNN_INVALID_TYPE,
         "dreset_c: expected dtype float32 (the dtype of x), got float64");
  dreset->dtype.bits = 32;
  CHECK(is_all(p->dx, 0xff));
  free_sequences(&all);
}

int main(void) {
  if (!can_run()) return NOT_ON_THIS_MACHINE;
  for (size_t i = 0; i < sizeof kFormats / sizeof kFormats[0]; ++i) {
    if (kFormats[i].compute == FUSEDRNN_COMPUTE_INT8) continue;
    snprintf(context, sizeof context, "%s, compute %d", kFormats[i].name, (int)kFormats[i].compute);
    test_values((Setting){&kFormats[i], 5, 4, 1, 3});
    test_values((Setting){&kFormats[i], 3, 2, 0, 0});
    test_gates((Setting){&kFormats[i], 5, 4, 1, 3});
    test_gates((Setting){&kFormats[i], 3, 2, 0, 0});
  }
  context[0] = '\0';
  test_gradients(FUSEDRNN_PADDING_ZERO);
  test_gradients(FUSEDRNN_PADDING_LAST);
  test_flow();
  test_left_out();
  test_no_resets(4, 3);
  test_no_resets(0, 3);
  test_no_resets(4, 0);
  test_refused();
  test_gate_names();
  test_refused_gates();
  return result();
}
