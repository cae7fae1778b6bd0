/* Networks from C11: what they say of themselves, and which runs make none. */
#include "abi_support.h"

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
  NO_NETWORK("runs[0].reads: expected a row that was written before, 0, got 1",
             with_rows(gru, 1, 2));
  NO_NETWORK("runs[0].reads: expected a row that was written before, 0, got -1",
             with_rows(gru, -1, 1));
  NO_NETWORK("runs[1].reads: expected a row that was written before, 0 or 1, got 2", gru,
             with_rows(above, 2, 3));
  NO_NETWORK("runs[0].writes: expected a row above the one that it reads, 1, got 0",
             with_rows(gru, 0, 0));
  NO_NETWORK("runs[0].writes: expected a row above the one that it reads, 1, got 2",
             with_rows(gru, 0, 2));
  NO_NETWORK("runs[1].writes: expected a row above the one that it reads, 1 or 2, got 3", gru,
             with_rows(gru, 0, 3));
  NO_NETWORK("runs[1].writes: expected a row above the one that it reads, 2, got 1", gru,
             with_rows(above, 1, 1));
  /* Row 1 is complete where row 2 begins. */
  NO_NETWORK("runs[2].writes: expected a row above the one that it reads, 2 or 3, got 1", gru,
             above, placed(gru, 0, 3));
  NO_NETWORK("runs[0].writes: expected a row above the one that it reads, 1, got -2147483648",
             with_rows(gru, 0, INT32_MIN));

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
             with_rows(layer("gru", 1, 4, 3), 1, 3));
  snprintf(message, sizeof message, "runs[0].read_offset: expected at most %lld, got %lld",
           (long long)(INT64_MAX / 64), (long long)INT64_MAX);
  NO_NETWORK(message, placed(gru, INT64_MAX, 0));
}

static void test_bad_constants(void) {
  const fusedrnn_run gru = layer("gru", 0, 2, 3), general = layer("gru_general", 0, 2, 3);
  double k[] = {2, FUSEDRNN_HARD_SIGMOID, 0.2, 0.5, FUSEDRNN_TANH, 0, 0};
  NO_NETWORK("runs[0].num_constants: expected 0 (constants is null), got 7",
             with_constants(general, NULL, 7));
  NO_NETWORK("runs[0].num_constants: expected 0 (gru has no constants), got 7",
             with_constants(gru, k, 7));
  NO_NETWORK("runs[0].num_constants: expected 7, got 6", with_constants(general, k, 6));
  NO_NETWORK("runs[0].num_constants: expected 7, got 0", with_constants(general, k, 0));
  k[0] = 0;
  NO_NETWORK("runs[0].constants[0]: expected at least 1e-09 (clip), got 0",
             with_constants(general, k, 7));
  k[0] = NAN;
  NO_NETWORK("runs[0].constants[0]: expected at least 1e-09 (clip), got nan",
             with_constants(general, k, 7));
  k[0] = INFINITY;
  k[1] = 12;
  NO_NETWORK("runs[0].constants[1]: expected a fusedrnn_activation, 0 to 11 (f), got 12",
             with_constants(general, k, 7));
  k[1] = FUSEDRNN_THRESHOLDED_RELU;
  k[6] = INFINITY;
  NO_NETWORK("runs[0].constants[6]: expected a finite number of float32 (g_beta), got inf",
             with_constants(general, k, 7));
  double clips[] = {1, 1, 2, 0, 0, 0, 1, 0, 0, 1, 0, 0};
  NO_NETWORK("runs[1].constants[2]: expected 0 or 1 (cell_clip_nan), got 2", gru,
             with_constants(layer("lstm_general", 1, 3, 3), clips, 12));
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

int main(void) {
  if (!can_run()) return NOT_ON_THIS_MACHINE;
  test_descriptions();
  test_bad_args();
  test_bad_runs();
  test_bad_constants();
  test_descriptions_are_copies();
  return result();
}
