/* Networks from C11: that a network computes what its runs compute one by one. */
#include "abi_support.h"

static const Setting kDoubles = {&kFormats[FLOAT64], 4, 3, 1, 0};

/* --- a network and its runs --- */

static void copy_list(List* to, const List* from, int first) {
  for (int i = 0; i < to->count; ++i) copy_columns(to->arrays[i], from->arrays[first + i], 0);
}
static int same_part(const List* part, const List* whole, int first) {
  int same = 1;
  for (int i = 0; i < part->count; ++i) {
    same &= same_bits(part->arrays[i], whole->arrays[first + i]);
  }
  return same;
}

/* With the usual constants, a general cell is the plain one. */
static void test_usual_constants(void) {
  const double usual[] = {INFINITY, FUSEDRNN_SIGMOID, 0, 0, FUSEDRNN_TANH, 0, 0};
  const fusedrnn_run plain = layer("gru", 0, 3, 5);
  const fusedrnn_run runs[] = {layer("gru_general", 0, 3, 5),
                               with_constants(layer("gru_general", 0, 3, 5), usual, 7)};
  Problem* const expected = new_problem(&plain, 1, kDoubles);
  const fusedrnn_forward_args inference = inference_of(expected);
  MUST(fusedrnn_forward(&inference));
  for (int i = 0; i < 2; ++i) {
    Problem* const p = new_problem(&runs[i], 1, kDoubles);
    copy_columns(p->x, expected->x, 0);
    copy_list(&p->parameters, &expected->parameters, 0);
    copy_list(&p->states, &expected->states, 0);
    const fusedrnn_forward_args args = inference_of(p);
    MUST(fusedrnn_forward(&args));
    CHECK(same_bits(p->states_n.arrays[0], expected->states_n.arrays[0]));
    free_problem(p);
  }
  free_problem(expected);
}

/* Runs first .. first + count - 1 of the network, all of which read row `runs[first].reads` and
 * write the next one, as a network of their own. Its parameters and states are those of `whole`,
 * where those of the runs before number `first_parameter` and `first_state`. */
typedef struct {
  Problem* problem;
  int first_parameter, first_state;
} Part;

static Part part_of(const Problem* whole, const fusedrnn_run* runs, int first, int count,
                    int64_t first_column) {
  fusedrnn_run own[MAX_RUNS];
  Part part = {NULL, 0, 0};
  for (int i = 0; i < count; ++i) {
    own[i] = runs[first + i];
    own[i].reads = 0;
    own[i].writes = 1;
    own[i].write_offset -= first_column;
    if (count == 1) own[i].read_offset = 0;
  }
  for (int i = 0; i < first; ++i) {
    part.first_parameter += 4;
    part.first_state += strcmp(runs[i].cell, "lstm") == 0 ? 2 : 1;
  }
  Problem* const p = part.problem = new_problem(own, count, whole->setting);
  copy_list(&p->parameters, &whole->parameters, part.first_parameter);
  copy_list(&p->states, &whole->states, part.first_state);
  copy_list(&p->dstates_n, &whole->dstates_n, part.first_state);
  return part;
}

static void check_outputs(const Part* part, const Problem* whole) {
  CHECK(same_part(&part->problem->states_n, &whole->states_n, part->first_state));
}
static void check_gradients_of(const Part* part, const Problem* whole) {
  CHECK(same_part(&part->problem->dparameters, &whole->dparameters, part->first_parameter));
  CHECK(same_part(&part->problem->dstates, &whole->dstates, part->first_state));
}

/* Whether `sum` is that of `a` and `b` as closely as its type can say. */
static void check_sum(const Array* sum, const Array* a, const Array* b, double epsilon) {
  for (int64_t r = 0; r < sum->rows; ++r) {
    for (int64_t c = 0; c < sum->row_length; ++c) {
      const double x = value_of(a, r, c), y = value_of(b, r, c);
      CHECK(fabs(value_of(sum, r, c) - (x + y)) <= 4 * epsilon * (fabs(x) + fabs(y) + 1));
    }
  }
}

/* Two layers in both directions. */
static void test_stack(Setting setting) {
  enum { I = 3, H = 5, K = 7, L = 9, M = 6 };
  const fusedrnn_run runs[] = {
      layer("lstm", 0, I, H), placed(reversed(layer("gru", 0, I, K)), 0, H),
      layer("gru_reset_before", 1, H + K, L), placed(reversed(layer("lstm", 1, H + K, M)), 0, L)};
  Problem* const whole = new_problem(runs, 4, setting);
  const fusedrnn_forward_args inference = inference_of(whole);
  MUST(fusedrnn_forward(&inference));
  Array* const y = new_sequence(&setting, L + M);
  copy_columns(y, whole->y, 0);
  train(whole);
  CHECK(same_bits(y, whole->y)); /* inference has the bits of training */

  /* Forward, one by one. */
  Part single[4];
  Array* const row = new_sequence(&setting, H + K);
  for (int i = 0; i < 4; ++i) {
    single[i] = part_of(whole, runs, i, 1, runs[i].write_offset);
    Problem* const p = single[i].problem;
    copy_columns(p->x, i < 2 ? whole->x : row, 0);
    MUST(fusedrnn_forward(&p->forward));
    if (i < 2) copy_into_columns(row, runs[i].write_offset, p->y);
    if (i >= 2) CHECK(same_columns(p->y, whole->y, runs[i].write_offset));
    check_outputs(&single[i], whole);
  }
  /* Backward: a network of both directions gives the layer below its upstream gradient. */
  Part layers[2];
  for (int k = 1; k >= 0; --k) {
    layers[k] = part_of(whole, runs, 2 * k, 2, 0);
    Problem* const p = layers[k].problem;
    copy_columns(p->x, k == 0 ? whole->x : row, 0);
    copy_columns(p->dy, k == 1 ? whole->dy : layers[1].problem->dx, 0);
    train(p);
    check_outputs(&layers[k], whole);
    check_gradients_of(&layers[k], whole);
    for (int i = 2 * k; i < 2 * k + 2; ++i) {
      copy_columns(single[i].problem->dy, p->dy, runs[i].write_offset);
      MUST(fusedrnn_backward(&single[i].problem->backward));
      check_gradients_of(&single[i], whole);
    }
    check_sum(p->dx, single[2 * k].problem->dx, single[2 * k + 1].problem->dx,
              setting.format->epsilon);
  }
  CHECK(same_bits(layers[0].problem->dx, whole->dx));

  for (int i = 0; i < 4; ++i) free_problem(single[i].problem);
  for (int k = 0; k < 2; ++k) free_problem(layers[k].problem);
  free_array(row);
  free_array(y);
  free_problem(whole);
}

static void test_stacks(void) {
  for (int f = 0; f < FORMATS; ++f) {
    for (int masks = 0; masks < 2; ++masks) {
      for (int64_t gap = 0; gap < 4; gap += 3) {
        snprintf(context, sizeof context, "stack, %s, masks %d, gap %d", kFormats[f].name, masks,
                 (int)gap);
        test_stack((Setting){&kFormats[f], 5, 3, masks, gap});
        test_stack((Setting){&kFormats[f], 1, 1, masks, gap});
      }
    }
  }
  context[0] = '\0';
}

/* Columns of x and of row 1 that many read, or one, or none. */
static void test_parts_of_rows(Setting setting) {
  const fusedrnn_run runs[] = {
      placed(layer("gru", 0, 3, 4), 2, 0), placed(reversed(layer("lstm", 0, 2, 5)), 3, 4),
      placed(layer("rnn_tanh", 1, 5, 3), 2, 0), placed(reversed(layer("gru", 1, 3, 2)), 1, 3)};
  enum { UNREAD_OF_X = 2, WIDTH = 9, FIRST_READ = 1, FIRST_UNREAD = 7 };
  Problem* const whole = new_problem(runs, 4, setting);
  CHECK(whole->info.input_size == 5 && whole->info.output_size == 5);
  train(whole);
  for (int64_t r = 0; r < whole->dx->rows; ++r) {
    for (int64_t c = 0; c < UNREAD_OF_X; ++c) {
      unsigned char zero[8] = {0};
      CHECK(memcmp(element_of(whole->dx, r, c), zero, whole->dx->item) == 0);
    }
  }

  Part single[4];
  Array* const row = new_sequence(&setting, WIDTH);
  for (int i = 0; i < 4; ++i) {
    single[i] = part_of(whole, runs, i, 1, runs[i].write_offset);
    Problem* const p = single[i].problem;
    copy_columns(p->x, i < 2 ? whole->x : row, runs[i].read_offset);
    MUST(fusedrnn_forward(&p->forward));
    if (i < 2) copy_into_columns(row, runs[i].write_offset, p->y);
    if (i >= 2) CHECK(same_columns(p->y, whole->y, runs[i].write_offset));
    check_outputs(&single[i], whole);
  }
  for (int i = 2; i < 4; ++i) {
    copy_columns(single[i].problem->dy, whole->dy, runs[i].write_offset);
    MUST(fusedrnn_backward(&single[i].problem->backward));
    check_gradients_of(&single[i], whole);
  }
  for (int i = 0; i < 4; ++i) free_problem(single[i].problem);
  free_array(row);
  free_problem(whole);
}

/* Networks of every form, against central differences: rows that many runs read, in whole or in
 * parts, layers that are passed over, rows that nobody reads. */
static void test_gradients(void) {
  const fusedrnn_run parts[] = {
      placed(layer("gru", 0, 3, 4), 2, 0), placed(reversed(layer("lstm", 0, 2, 5)), 3, 4),
      placed(layer("rnn_tanh", 1, 5, 3), 2, 0), placed(reversed(layer("gru", 1, 3, 2)), 1, 3)};
  /* x feeds all three rows, row 1 the two above it. */
  const fusedrnn_run passing[] = {layer("gru", 0, 2, 3),
                                  layer("rnn_tanh", 1, 3, 2),
                                  with_rows(placed(layer("lstm", 0, 2, 2), 0, 2), 0, 2),
                                  with_rows(layer("gru_reset_before", 2, 4, 3), 2, 3),
                                  with_rows(placed(reversed(layer("gru", 1, 3, 1)), 0, 3), 1, 3),
                                  with_rows(placed(layer("rnn_sigmoid", 0, 1, 2), 0, 4), 0, 3)};
  /* Of rows 1 and 3 only states leave. */
  const fusedrnn_run unread[] = {layer("lstm", 0, 2, 3), with_rows(layer("gru", 0, 2, 2), 0, 2),
                                 with_rows(layer("gru", 2, 2, 3), 2, 3),
                                 with_rows(layer("rnn_tanh", 2, 2, 2), 2, 4)};
  /* The last columns of row 1 reach nobody. */
  const fusedrnn_run narrow[] = {layer("gru", 0, 2, 3), placed(layer("gru", 0, 2, 2), 0, 3),
                                 layer("lstm", 1, 2, 2)};
  const struct {
    const char* name;
    const fusedrnn_run* runs;
    int count;
  } networks[] = {
      {"parts", parts, 4}, {"passing", passing, 6}, {"unread", unread, 4}, {"narrow", narrow, 3}};
  for (size_t i = 0; i < sizeof networks / sizeof networks[0]; ++i) {
    for (int masks = 0; masks < 2; ++masks) {
      snprintf(context, sizeof context, "gradients, %s, masks %d", networks[i].name, masks);
      Setting setting = kDoubles;
      setting.masks = masks;
      setting.gap = masks;
      Problem* const p = new_problem(networks[i].runs, networks[i].count, setting);
      check_gradients(p);
      free_problem(p);
    }
  }
  context[0] = '\0';
}

/* A row that nobody reads has the gradients of its states alone, and without these none. */
static void test_unread_row(void) {
  const fusedrnn_run runs[] = {layer("gru", 0, 2, 3), with_rows(layer("lstm", 0, 2, 4), 0, 2)};
  Problem* const whole = new_problem(runs, 2, kDoubles);
  train(whole);
  const Part first = part_of(whole, runs, 0, 1, 0), second = part_of(whole, runs, 1, 1, 0);
  for (int i = 0; i < 2; ++i) {
    Problem* const p = i == 0 ? first.problem : second.problem;
    copy_columns(p->x, whole->x, 0);
    if (i == 1) copy_columns(p->dy, whole->dy, 0);
    if (i == 0) p->backward.dy = NULL;
    train(p);
    check_outputs(i == 0 ? &first : &second, whole);
    check_gradients_of(i == 0 ? &first : &second, whole);
  }
  CHECK(same_bits(second.problem->y, whole->y));
  check_sum(whole->dx, first.problem->dx, second.problem->dx, kFormats[FLOAT64].epsilon);

  whole->backward.dstates_n = NULL;
  clear_outputs(whole);
  train(whole);
  for (int i = 0; i < first.problem->parameters.count; ++i) {
    const Array* const gradient = whole->dparameters.arrays[i];
    for (int64_t r = 0; r < gradient->rows; ++r) {
      for (int64_t c = 0; c < gradient->row_length; ++c) CHECK(value_of(gradient, r, c) == 0);
    }
  }
  free_problem(first.problem);
  free_problem(second.problem);
  free_problem(whole);
}

/* Inference keeps only the rows that somebody still reads: many layers, of many widths, with some
 * that reach far up. */
static void test_rows_that_take_turns(void) {
  enum { LAYERS = MAX_RUNS };
  fusedrnn_run runs[LAYERS];
  int64_t width = 3;
  for (int k = 0; k < LAYERS; ++k) {
    const int64_t hidden = 1 + (k * 5) % 7;
    runs[k] = layer(kCells[k % CELLS], k, width, hidden);
    width = hidden;
  }
  runs[5].reads = 1; /* beside the layers between */
  runs[5].input_size = runs[0].hidden_size;
  for (int masks = 0; masks < 2; ++masks) {
    Setting setting = kDoubles;
    setting.masks = masks;
    Problem* const p = new_problem(runs, LAYERS, setting);
    MUST(fusedrnn_forward(&p->forward));
    Array* const y = new_sequence(&setting, p->info.output_size);
    copy_columns(y, p->y, 0);
    clear_outputs(p);
    const fusedrnn_forward_args inference = inference_of(p);
    MUST(fusedrnn_forward(&inference));
    CHECK(same_bits(y, p->y));
    check_gradients(p);
    free_array(y);
    free_problem(p);
  }
}

/* Each run's sizes may be small and a row's all the same beyond memory. */
static void test_wide_rows(void) {
  const fusedrnn_run run = placed(layer("gru", 0, 2, 3), INT64_C(1) << 50, 0);
  const fusedrnn_run narrow = layer("gru", 0, 2, 3);
  Problem* const p = new_problem(&narrow, 1, kDoubles);
  fusedrnn_network* const wide = new_network(&run, 1, kFormats[FLOAT64].type, 0);
  size_t bytes = 0;
  EXPECT_VALUE_ERROR(
      fusedrnn_reserve_bytes(wide, (DLDevice){kDLCPU, 0}, 64, 64, &bytes),
      "steps, batch: expected at least 0, and fewer than memory can name, got 64, 64");
  fusedrnn_forward_args args = inference_of(p);
  args.network = wide;
  p->x->shape[0] = p->x->shape[1] = 64;
  p->x->shape[2] = (INT64_C(1) << 50) + 2;
  EXPECT_VALUE_ERROR(fusedrnn_forward(&args),
                     "x: T = 64, B = 64, I = 1125899906842626, H = 3 are too large");
  fusedrnn_network_free(wide);
  free_problem(p);
}

/* Gradients of a layer that lies below another: names say which run's array is wrong. */
static void test_names_of_runs(void) {
  const fusedrnn_run runs[] = {layer("gru", 0, 2, 3), layer("lstm", 1, 3, 4)};
  Problem* const p = new_problem(runs, 2, kDoubles);
  p->states.arrays[2]->shape[1] = 9;
  EXPECT_VALUE_ERROR(fusedrnn_forward(&p->forward),
                     "runs[1].c0: expected shape (3, 4), got (3, 9)");
  p->states.arrays[2]->shape[1] = 4;
  p->states_n.arrays[0]->shape[0] = 1;
  EXPECT_VALUE_ERROR(fusedrnn_forward(&p->forward),
                     "runs[0].h_n: expected shape (3, 3), got (1, 3)");
  p->states_n.arrays[0]->shape[0] = 3;
  p->parameters.tensors[4] = NULL;
  EXPECT_VALUE_ERROR(fusedrnn_forward(&p->forward), "runs[1].w_ih: expected an array, got none");
  p->parameters.tensors[4] = &p->parameters.arrays[4]->tensor;
  p->parameters.tensors[7] = &p->parameters.arrays[3]->tensor;
  EXPECT_VALUE_ERROR(fusedrnn_forward(&p->forward), "runs[1].b_hh: expected shape (16,), got (9,)");
  p->parameters.tensors[7] = NULL; /* optional */
  MUST(fusedrnn_forward(&p->forward));
  p->dparameters.tensors[1] = p->dparameters.tensors[0];
  EXPECT_VALUE_ERROR(fusedrnn_backward(&p->backward),
                     "runs[0].dw_hh: expected shape (9, 3), got (9, 2)");
  p->dparameters.tensors[1] = NULL;
  p->dstates.tensors[2] = p->dstates.tensors[1];
  EXPECT_VALUE_ERROR(fusedrnn_backward(&p->backward),
                     "runs[1].dc0: expected memory apart from runs[1].dh0, got overlapping memory");
  p->dstates.tensors[2] = &p->dstates.arrays[2]->tensor;
  p->dstates_n.tensors[1] = p->dstates_n.tensors[0];
  EXPECT_VALUE_ERROR(fusedrnn_backward(&p->backward),
                     "runs[1].dh_n: expected shape (3, 4), got (3, 3)");
  free_problem(p);
}

/* --- dropout --- */

/* Philox4x32-10: the four numbers of one counter. */
static void philox(uint64_t key, const uint32_t counter[4], uint32_t numbers[4]) {
  uint32_t even = (uint32_t)key, odd = (uint32_t)(key >> 32);
  memcpy(numbers, counter, 4 * sizeof *numbers);
  for (int round = 0; round < 10; ++round) {
    const uint64_t first = (uint64_t)numbers[0] * 0xD2511F53u;
    const uint64_t second = (uint64_t)numbers[2] * 0xCD9E8D57u;
    numbers[0] = (uint32_t)(second >> 32) ^ numbers[1] ^ even;
    numbers[1] = (uint32_t)second;
    numbers[2] = (uint32_t)(first >> 32) ^ numbers[3] ^ odd;
    numbers[3] = (uint32_t)first;
    even += 0x9E3779B9u;
    odd += 0xBB67AE85u;
  }
}

/* The numbers of a row [T,B,n] of doubles, by those of `from`. */
static void drop(Array* to, const Array* from, double rate, uint64_t seed, uint32_t row,
                 uint32_t step, int64_t batch) {
  CHECK(to->rows == from->rows && to->row_length == from->row_length);
  for (int64_t i = 0; i < to->rows; ++i) {
    for (int64_t unit = 0; unit < to->row_length; ++unit) {
      const uint32_t counter[] = {(uint32_t)(unit / 4), (uint32_t)(i % batch),
                                  step + (uint32_t)(i / batch), row};
      uint32_t numbers[4];
      philox(seed, counter, numbers);
      const int kept = numbers[unit % 4] >= rate * 4294967296.0;
      store(element_of(to, i, unit), to->tensor.dtype,
            kept ? value_of(from, i, unit) * (1 / (1 - rate)) : 0);
    }
  }
}

/* Two networks of one layer each and, between them, what is dropped; forward and backward. */
static void test_dropout(Setting setting) {
  const fusedrnn_run runs[] = {layer("gru", 0, 2, 5), reversed(layer("lstm", 1, 5, 4))};
  const double rate = 0.375;
  const uint64_t seed = 0x123456789abcdef0u;
  enum { STEP = 6 };
  Problem* const whole = new_problem(runs, 2, setting);
  whole->forward.dropout = whole->backward.dropout = rate;
  whole->forward.dropout_seed = whole->backward.dropout_seed = seed;
  whole->forward.dropout_step = whole->backward.dropout_step = STEP;
  MUST(fusedrnn_forward(&whole->forward));
  MUST(fusedrnn_backward(&whole->backward));

  const Part below = part_of(whole, runs, 0, 1, 0), above = part_of(whole, runs, 1, 1, 0);
  copy_columns(below.problem->x, whole->x, 0);
  MUST(fusedrnn_forward(&below.problem->forward));
  drop(above.problem->x, below.problem->y, rate, seed, 1, STEP, setting.batch);
  MUST(fusedrnn_forward(&above.problem->forward));
  CHECK(same_bits(above.problem->y, whole->y));
  check_outputs(&below, whole);
  check_outputs(&above, whole);

  copy_columns(above.problem->dy, whole->dy, 0);
  MUST(fusedrnn_backward(&above.problem->backward));
  drop(below.problem->dy, above.problem->dx, rate, seed, 1, STEP, setting.batch);
  MUST(fusedrnn_backward(&below.problem->backward));
  CHECK(same_bits(below.problem->dx, whole->dx));
  check_gradients_of(&below, whole);
  check_gradients_of(&above, whole);

  /* Inference drops the same, and another seed something else. */
  Array* const y = new_sequence(&setting, whole->info.output_size);
  fusedrnn_forward_args inference = inference_of(whole);
  inference.dropout = rate;
  inference.dropout_seed = seed;
  inference.dropout_step = STEP;
  inference.y = &y->tensor;
  MUST(fusedrnn_forward(&inference));
  CHECK(same_bits(y, whole->y));
  ++inference.dropout_seed;
  MUST(fusedrnn_forward(&inference));
  CHECK(!same_bits(y, whole->y));
  free_array(y);
  free_problem(whole);
  free_problem(below.problem);
  free_problem(above.problem);
}

static void test_wrong_dropout(void) {
  const fusedrnn_run runs[] = {layer("gru", 0, 2, 5), layer("gru", 1, 5, 4)};
  Problem* const p = new_problem(runs, 2, kDoubles);
  const double wrong[] = {1, -0.5, NAN, INFINITY, 1 + 0x1p-52};
  const char* const shown[] = {"1", "-0.5", "nan", "inf", "1.0000000000000002"};
  for (int i = 0; i < 5; ++i) {
    char message[128];
    snprintf(message, sizeof message, "dropout: expected at least 0 and below 1, got %s", shown[i]);
    p->forward.dropout = p->backward.dropout = wrong[i];
    EXPECT_VALUE_ERROR(fusedrnn_forward(&p->forward), message);
    EXPECT_VALUE_ERROR(fusedrnn_backward(&p->backward), message);
  }
  p->forward.dropout = 0.5;
  p->forward.dropout_step = -1;
  EXPECT_VALUE_ERROR(fusedrnn_forward(&p->forward), "dropout_step: expected at least 0, got -1");
  p->forward.dropout_step = 2;
  p->forward.dropout_seed = UINT64_MAX;
  MUST(fusedrnn_forward(&p->forward));
  clear_outputs(p);
  p->backward.dropout = 0;
  EXPECT_VALUE_ERROR(fusedrnn_backward(&p->backward),
                     "dropout: expected 0.5, that of the forward call, got 0");
  p->backward.dropout = 0.5;
  EXPECT_VALUE_ERROR(fusedrnn_backward(&p->backward),
                     "dropout_seed: expected 18446744073709551615, that of the forward call, got "
                     "0");
  p->backward.dropout_seed = UINT64_MAX;
  EXPECT_VALUE_ERROR(fusedrnn_backward(&p->backward),
                     "dropout_step: expected 2, that of the forward call, got 0");
  p->backward.dropout_step = 2;
  p->backward.training = 1;
  EXPECT_VALUE_ERROR(fusedrnn_backward(&p->backward),
                     "training: expected 0, that of the forward call, got 1");
  p->backward.training = 0;
  p->backward.reserved = 3;
  EXPECT_VALUE_ERROR(fusedrnn_backward(&p->backward), "reserved: expected 0, got 3");
  p->backward.reserved = 0;
  MUST(fusedrnn_backward(&p->backward));

  /* Without a rate a seed is no matter, and 0 has no sign. */
  p->forward.dropout = 0;
  p->backward.dropout = -0.0;
  p->backward.dropout_seed = 5;
  MUST(fusedrnn_forward(&p->forward));
  MUST(fusedrnn_backward(&p->backward));

  fusedrnn_frozen* frozen = NULL;
  MUST(fusedrnn_freeze(p->network, inputs_of(&p->parameters), &frozen));
  fusedrnn_forward_args args = inference_of(p);
  args.network = NULL;
  args.parameters = NULL;
  args.dropout = 0.5;
  EXPECT_VALUE_ERROR(fusedrnn_frozen_forward(frozen, &args),
                     "dropout: expected 0 (the weights are frozen), got 0.5");
  args.dropout = NAN;
  EXPECT_VALUE_ERROR(fusedrnn_frozen_forward(frozen, &args),
                     "dropout: expected 0 (the weights are frozen), got nan");
  args.dropout = 0;
  MUST(fusedrnn_frozen_forward(frozen, &args));
  fusedrnn_frozen_free(frozen);
  free_problem(p);
}

int main(void) {
  if (!can_run()) return NOT_ON_THIS_MACHINE;
  MUST(fusedrnn_set_num_threads(2));
  test_usual_constants();
  test_stacks();
  for (int f = 0; f < FORMATS; ++f) {
    snprintf(context, sizeof context, "parts of rows, %s", kFormats[f].name);
    test_parts_of_rows((Setting){&kFormats[f], 4, 3, 1, 2});
  }
  context[0] = '\0';
  test_gradients();
  test_unread_row();
  test_rows_that_take_turns();
  test_wide_rows();
  test_names_of_runs();
  test_dropout(kDoubles);
  test_dropout((Setting){&kFormats[FLOAT64], 9, 4, 1, 3});
  test_wrong_dropout();
  return result();
}
