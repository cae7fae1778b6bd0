/* Networks from C11: what they say of themselves, which runs make none, and that a network computes
 * what its runs compute one by one. */
#include "abi_support.h"

static const Setting kDoubles = {&kFormats[FLOAT64], 4, 3, 1, 0};

/* --- descriptions --- */

typedef struct {
  const char* name;
  int32_t run, optional, ndim;
  int64_t shape[2];
} Expected;

static void check_info(const fusedrnn_array_info* got, const Expected* expected) {
  CHECK(strcmp(got->name, expected->name) == 0);
  CHECK(got->run == expected->run);
  CHECK(got->optional == expected->optional);
  CHECK(got->ndim == expected->ndim);
  CHECK(got->shape[0] == expected->shape[0] && got->shape[1] == expected->shape[1]);
}

static void test_descriptions(void) {
  const fusedrnn_run runs[] = {layer("lstm", 0, 2, 3),
                               placed(reversed(layer("gru", 0, 2, 5)), 0, 3),
                               layer("rnn_relu", 1, 8, 7)};
  fusedrnn_network* const network = new_network(runs, 3, kFormats[FLOAT32].type, 0);
  const Expected parameters[] = {
      {"w_ih", 0, 0, 2, {12, 2}}, {"w_hh", 0, 0, 2, {12, 3}}, {"b_ih", 0, 1, 1, {12, 0}},
      {"b_hh", 0, 1, 1, {12, 0}}, {"w_ih", 1, 0, 2, {15, 2}}, {"w_hh", 1, 0, 2, {15, 5}},
      {"b_ih", 1, 1, 1, {15, 0}}, {"b_hh", 1, 1, 1, {15, 0}}, {"w_ih", 2, 0, 2, {7, 8}},
      {"w_hh", 2, 0, 2, {7, 7}},  {"b_ih", 2, 1, 1, {7, 0}},  {"b_hh", 2, 1, 1, {7, 0}}};
  const Expected states[] = {{"h", 0, 1, 1, {3, 0}},
                             {"c", 0, 1, 1, {3, 0}},
                             {"h", 1, 1, 1, {5, 0}},
                             {"h", 2, 1, 1, {7, 0}}};

  fusedrnn_network_info info;
  memset(&info, 0x55, sizeof info);
  CHECK(fusedrnn_network_describe(network, &info) == FUSEDRNN_OK);
  CHECK(info.num_runs == 3 && info.num_parameters == 12 && info.num_states == 4);
  CHECK(info.input_size == 2 && info.output_size == 7);
  fusedrnn_array_info array;
  for (int32_t i = 0; i < 12; ++i) {
    memset(&array, 0x55, sizeof array);
    CHECK(fusedrnn_network_parameter(network, i, &array) == FUSEDRNN_OK);
    check_info(&array, &parameters[i]);
  }
  for (int32_t i = 0; i < 4; ++i) {
    memset(&array, 0x55, sizeof array);
    CHECK(fusedrnn_network_state(network, i, &array) == FUSEDRNN_OK);
    check_info(&array, &states[i]);
  }
  const char* const name = array.name;

  EXPECT_VALUE_ERROR(fusedrnn_network_describe(NULL, &info),
                     "network: expected an address, got null");
  EXPECT_VALUE_ERROR(fusedrnn_network_describe(network, NULL),
                     "info: expected an address, got null");
  EXPECT_VALUE_ERROR(fusedrnn_network_parameter(NULL, 0, &array),
                     "network: expected an address, got null");
  EXPECT_VALUE_ERROR(fusedrnn_network_parameter(network, 0, NULL),
                     "info: expected an address, got null");
  EXPECT_VALUE_ERROR(fusedrnn_network_parameter(network, -1, &array),
                     "index: expected 0 to 11, got -1");
  EXPECT_VALUE_ERROR(fusedrnn_network_parameter(network, 12, &array),
                     "index: expected 0 to 11, got 12");
  EXPECT_VALUE_ERROR(fusedrnn_network_state(NULL, 0, &array),
                     "network: expected an address, got null");
  EXPECT_VALUE_ERROR(fusedrnn_network_state(network, 0, NULL),
                     "info: expected an address, got null");
  EXPECT_VALUE_ERROR(fusedrnn_network_state(network, 4, &array), "index: expected 0 to 3, got 4");
  EXPECT_VALUE_ERROR(fusedrnn_network_state(network, INT32_MIN, &array),
                     "index: expected 0 to 3, got -2147483648");
  fusedrnn_network_free(network);
  fusedrnn_network_free(NULL);
  CHECK(strcmp(name, "h") == 0); /* valid for as long as the library is */
}

/* --- what is no network --- */

static fusedrnn_status create(const fusedrnn_network_args* args) {
  fusedrnn_network* const before = (fusedrnn_network*)&failures;
  fusedrnn_network* network = before;
  const fusedrnn_status status = fusedrnn_network_create(args, &network);
  CHECK(network == before);
  return status;
}

static void test_bad_args(void) {
  const fusedrnn_run run = layer("gru", 0, 2, 3);
  const fusedrnn_network_args good = {
      .size = sizeof good, .runs = &run, .num_runs = 1, .dtype = kFormats[FLOAT32].type};
  EXPECT_VALUE_ERROR(create(NULL), "args: expected an address, got null");
  EXPECT_VALUE_ERROR(fusedrnn_network_create(&good, NULL),
                     "network: expected an address, got null");
  char message[128];
  fusedrnn_network_args args = good;
  args.size = 8;
  snprintf(message, sizeof message,
           "fusedrnn_network_args: expected size = %zu (its sizeof), got 8", sizeof args);
  EXPECT_VALUE_ERROR(create(&args), message);
  args = good;
  for (int32_t memory = -1; memory < 3; memory += 3) {
    args.memory = memory;
    snprintf(message, sizeof message, "memory: expected a fusedrnn_memory, got %d", memory);
    EXPECT_VALUE_ERROR(create(&args), message);
  }
  args = good;
  args.runs = NULL;
  EXPECT_VALUE_ERROR(create(&args), "runs: expected an address, got null");
  args = good;
  args.num_runs = 0;
  EXPECT_VALUE_ERROR(create(&args), "num_runs: expected 1 to 1048576, got 0");
  args.num_runs = INT32_MAX;
  EXPECT_VALUE_ERROR(create(&args), "num_runs: expected 1 to 1048576, got 2147483647");
  args = good;
  args.compute = 7;
  EXPECT_VALUE_ERROR(create(&args), "compute: expected a fusedrnn_compute, got 7");
  args.compute = FUSEDRNN_COMPUTE_BFLOAT16;
  args.dtype.bits = 64;
  EXPECT_VALUE_ERROR(create(&args),
                     "compute: expected FUSEDRNN_COMPUTE_SAME with arrays of float64, got "
                     "FUSEDRNN_COMPUTE_BFLOAT16");
  args.compute = FUSEDRNN_COMPUTE_INT8;
  args.dtype = kFormats[BFLOAT16].type;
  EXPECT_VALUE_ERROR(create(&args),
                     "compute: expected FUSEDRNN_COMPUTE_SAME with arrays of bfloat16, got "
                     "FUSEDRNN_COMPUTE_INT8");
  args = good;
  args.dtype = (DLDataType){kDLInt, 32, 1};
  EXPECT(create(&args), FUSEDRNN_INVALID_TYPE,
         "dtype: expected dtype float32, float64, bfloat16 or float16, got int32");
  args.dtype = (DLDataType){kDLFloat, 32, 2};
  EXPECT(create(&args), FUSEDRNN_INVALID_TYPE,
         "dtype: expected dtype float32, float64, bfloat16 or float16, got float32 with 2 lanes");
  args.dtype = (DLDataType){99, 1, 1};
  EXPECT(create(&args), FUSEDRNN_INVALID_TYPE,
         "dtype: expected dtype float32, float64, bfloat16 or float16, got DLPack type code 99 of "
         "bits 1");
}

static void expect_no_network(int line, const fusedrnn_run* runs, int num_runs,
                              const char* message) {
  const fusedrnn_network_args args = {
      .size = sizeof args, .runs = runs, .num_runs = num_runs, .dtype = kFormats[FLOAT32].type};
  expect_at(line, create(&args), FUSEDRNN_INVALID_VALUE, message);
}
#define NO_NETWORK(message, ...)                                              \
  do {                                                                        \
    const fusedrnn_run runs[] = {__VA_ARGS__};                                \
    expect_no_network(__LINE__, runs, sizeof runs / sizeof *runs, (message)); \
  } while (0)

static fusedrnn_run with(fusedrnn_run run, int32_t reads, int32_t writes) {
  run.reads = reads;
  run.writes = writes;
  return run;
}
static fusedrnn_run projected(fusedrnn_run run, int64_t size) {
  run.projection_size = size;
  return run;
}

static fusedrnn_run dropping(fusedrnn_run run, double rate) {
  run.weight_dropout = rate;
  return run;
}

static fusedrnn_run zoned(fusedrnn_run run, double h, double c) {
  run.zoneout_h = h;
  run.zoneout_c = c;
  return run;
}

static fusedrnn_run masked(fusedrnn_run run, double candidate, double h) {
  run.candidate_dropout = candidate;
  run.recurrent_dropout = h;
  return run;
}

static void test_bad_runs(void) {
  const fusedrnn_run gru = layer("gru", 0, 2, 3), above = layer("gru", 1, 3, 3);
  const char* const cells =
      "rnn_tanh, rnn_relu, rnn_sigmoid, rnn_identity, gru, gru_reset_before, lstm, lstm_peephole, "
      "lstm_coupled, lstm_coupled_peephole, lstm_projection, "
      "indrnn_relu, indrnn_tanh, mingru_linear, mingru_positive, minlstm_linear, "
      "minlstm_positive, slstm, slstm_exp, lstm_layer_norm, gru_layer_norm, gru_world_model, "
      "rnn_general, gru_general, gru_reset_before_general, "
      "lstm_general, lstm_coupled_general, lstm_projection_general";
  char message[640];
  snprintf(message, sizeof message, "cell: expected one of %s, got 'elman'", cells);
  NO_NETWORK(message, layer("elman", 0, 2, 3));
  snprintf(message, sizeof message, "cell: expected one of %s, got null", cells);
  NO_NETWORK(message, layer(NULL, 0, 2, 3));
  snprintf(message, sizeof message, "runs[1].cell: expected one of %s, got ''", cells);
  NO_NETWORK(message, gru, layer("", 1, 3, 3));

  NO_NETWORK("runs[0].input_size: expected at least 1, got 0", layer("gru", 0, 0, 3));
  NO_NETWORK("runs[1].hidden_size: expected at least 1, got -3", gru, layer("gru", 1, 3, -3));
  NO_NETWORK("runs[0].projection_size: expected 0 (gru has no projection), got 2",
             projected(gru, 2));
  NO_NETWORK("runs[0].projection_size: expected 0 (gru has no projection), got -1",
             projected(gru, -1));
  snprintf(message, sizeof message, "w_ih: I = 2, H = %lld are too large", (long long)INT64_MAX);
  NO_NETWORK(message, layer("gru", 0, 2, INT64_MAX));
  snprintf(message, sizeof message, "runs[1].w_hh: I = 3, H = %lld are too large", 1LL << 32);
  NO_NETWORK(message, gru, layer("gru", 1, 3, INT64_C(1) << 32));

  NO_NETWORK("runs[0].weight_dropout: expected at least 0 and below 1, got 1", dropping(gru, 1));
  NO_NETWORK("runs[1].weight_dropout: expected at least 0 and below 1, got nan", gru,
             dropping(above, NAN));
  NO_NETWORK("runs[0].weight_dropout: expected 0 (indrnn_relu has no matrix w_hh), got 0.5",
             dropping(layer("indrnn_relu", 0, 2, 3), 0.5));
  NO_NETWORK("runs[0].zoneout_h: expected at least 0 and at most 1, got 1.5", zoned(gru, 1.5, 0));
  NO_NETWORK("runs[0].zoneout_c: expected at least 0 and at most 1, got -1",
             zoned(layer("lstm", 0, 2, 3), 1, -1));
  NO_NETWORK("runs[1].zoneout_c: expected 0 (gru has no state but h), got 1", gru,
             zoned(above, 0, 1));
  NO_NETWORK("runs[0].candidate_dropout: expected at least 0 and below 1, got 1",
             masked(layer("gru_general", 0, 2, 3), 1, 0));
  NO_NETWORK("runs[0].candidate_dropout: expected 0 (gru has no candidate to drop), got 0.5",
             masked(gru, 0.5, 0));
  NO_NETWORK("runs[0].recurrent_dropout: expected at least 0 and below 1, got -0.5",
             masked(gru, 0, -0.5));
  NO_NETWORK("runs[0].recurrent_dropout: expected 0 (indrnn_tanh has no matrix w_hh), got 0.5",
             masked(layer("indrnn_tanh", 0, 2, 3), 0, 0.5));
  NO_NETWORK("runs[0].reads: expected a row that was written before, 0, got 1", with(gru, 1, 2));
  NO_NETWORK("runs[0].reads: expected a row that was written before, 0, got -1", with(gru, -1, 1));
  NO_NETWORK("runs[1].reads: expected a row that was written before, 0 or 1, got 2", gru,
             with(above, 2, 3));
  NO_NETWORK("runs[0].writes: expected a row above the one that it reads, 1, got 0",
             with(gru, 0, 0));
  NO_NETWORK("runs[0].writes: expected a row above the one that it reads, 1, got 2",
             with(gru, 0, 2));
  NO_NETWORK("runs[1].writes: expected a row above the one that it reads, 1 or 2, got 3", gru,
             with(gru, 0, 3));
  NO_NETWORK("runs[1].writes: expected a row above the one that it reads, 2, got 1", gru,
             with(above, 1, 1));
  /* Row 1 is complete where row 2 begins. */
  NO_NETWORK("runs[2].writes: expected a row above the one that it reads, 2 or 3, got 1", gru,
             above, placed(gru, 0, 3));
  NO_NETWORK("runs[0].writes: expected a row above the one that it reads, 1, got -2147483648",
             with(gru, 0, INT32_MIN));

  NO_NETWORK("runs[0].read_offset: expected at least 0, got -1", placed(gru, -1, 0));
  NO_NETWORK("runs[0].write_offset: expected at least 0, got -1", placed(gru, 0, -1));
  NO_NETWORK(
      "write_offset: expected every column of row 1 written by one run, the next at 0, got 1",
      placed(gru, 0, 1));
  NO_NETWORK(
      "write_offset: expected every column of row 1 written by one run, the next at 3, got 4", gru,
      placed(gru, 0, 4));
  NO_NETWORK(
      "write_offset: expected every column of row 1 written by one run, the next at 3, got 2",
      placed(gru, 0, 2), gru);
  NO_NETWORK(
      "write_offset: expected every column of row 1 written by one run, the next at 3, got 0", gru,
      gru);
  NO_NETWORK("runs[1].input_size: expected columns of row 1, which ends at 3, got 4", gru,
             layer("gru", 1, 4, 3));
  NO_NETWORK("runs[1].input_size: expected columns of row 1, which ends at 3, got 4", gru,
             placed(above, 1, 0));
  NO_NETWORK("runs[2].input_size: expected columns of row 1, which ends at 3, got 4", gru, above,
             with(layer("gru", 1, 4, 3), 1, 3));
  snprintf(message, sizeof message, "runs[0].read_offset: expected at most %lld, got %lld",
           (long long)(INT64_MAX / 64), (long long)INT64_MAX);
  NO_NETWORK(message, placed(gru, INT64_MAX, 0));
}

static fusedrnn_run constant(fusedrnn_run run, const double* constants, int32_t count) {
  run.constants = constants;
  run.num_constants = count;
  return run;
}

static void test_bad_constants(void) {
  const fusedrnn_run gru = layer("gru", 0, 2, 3), general = layer("gru_general", 0, 2, 3);
  double k[] = {2, FUSEDRNN_HARD_SIGMOID, 0.2, 0.5, FUSEDRNN_TANH, 0, 0};
  NO_NETWORK("runs[0].num_constants: expected 0 (constants is null), got 7",
             constant(general, NULL, 7));
  NO_NETWORK("runs[0].num_constants: expected 0 (gru has no constants), got 7",
             constant(gru, k, 7));
  NO_NETWORK("runs[0].num_constants: expected 7, got 6", constant(general, k, 6));
  NO_NETWORK("runs[0].num_constants: expected 7, got 0", constant(general, k, 0));
  k[0] = 0;
  NO_NETWORK("runs[0].constants[0]: expected at least 1e-09 (clip), got 0",
             constant(general, k, 7));
  k[0] = NAN;
  NO_NETWORK("runs[0].constants[0]: expected at least 1e-09 (clip), got nan",
             constant(general, k, 7));
  k[0] = INFINITY;
  k[1] = 12;
  NO_NETWORK("runs[0].constants[1]: expected a fusedrnn_activation, 0 to 11 (f), got 12",
             constant(general, k, 7));
  k[1] = FUSEDRNN_THRESHOLDED_RELU;
  k[6] = INFINITY;
  NO_NETWORK("runs[0].constants[6]: expected a finite number of float32 (g_beta), got inf",
             constant(general, k, 7));
  double clips[] = {1, 1, 2, 0, 0, 0, 1, 0, 0, 1, 0, 0};
  NO_NETWORK("runs[1].constants[2]: expected 0 or 1 (cell_clip_nan), got 2", gru,
             constant(layer("lstm_general", 1, 3, 3), clips, 12));
}

/* A network may be made from what is gone afterwards. */
static void test_descriptions_are_copies(void) {
  char cell[] = "gru";
  fusedrnn_run run = layer(cell, 0, 2, 3);
  fusedrnn_network_args args = {
      .size = sizeof args, .runs = &run, .num_runs = 1, .dtype = kFormats[FLOAT32].type};
  fusedrnn_network* network = NULL;
  MUST(fusedrnn_network_create(&args, &network));
  memset(cell, 'x', 3);
  memset(&run, 0xff, sizeof run);
  memset(&args, 0xff, sizeof args);
  fusedrnn_array_info info;
  MUST(fusedrnn_network_parameter(network, 1, &info));
  CHECK(info.shape[0] == 9 && info.shape[1] == 3);
  fusedrnn_network_free(network);
}

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
                               constant(layer("gru_general", 0, 3, 5), usual, 7)};
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
                                  with(placed(layer("lstm", 0, 2, 2), 0, 2), 0, 2),
                                  with(layer("gru_reset_before", 2, 4, 3), 2, 3),
                                  with(placed(reversed(layer("gru", 1, 3, 1)), 0, 3), 1, 3),
                                  with(placed(layer("rnn_sigmoid", 0, 1, 2), 0, 4), 0, 3)};
  /* Of rows 1 and 3 only states leave. */
  const fusedrnn_run unread[] = {layer("lstm", 0, 2, 3), with(layer("gru", 0, 2, 2), 0, 2),
                                 with(layer("gru", 2, 2, 3), 2, 3),
                                 with(layer("rnn_tanh", 2, 2, 2), 2, 4)};
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
  const fusedrnn_run runs[] = {layer("gru", 0, 2, 3), with(layer("lstm", 0, 2, 4), 0, 2)};
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
  test_descriptions();
  test_bad_args();
  test_bad_runs();
  test_bad_constants();
  test_usual_constants();
  test_descriptions_are_copies();
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
