/* Networks of dual numbers from C11: results of a forward call, and gradients of a backward call,
 * with their derivatives along a direction, against differences of calls in float64. */
#include "abi_support.h"

static const Format kDual = {"complex128", {kDLComplex, 128, 1}, FUSEDRNN_COMPUTE_SAME, 1e-14};

/* An array of dual numbers from its values and, unless NULL, its tangents. */
static void join(Array* dual, const Array* value, const Array* tangent) {
  for (int64_t r = 0; r < dual->rows; ++r) {
    for (int64_t c = 0; c < dual->row_length; ++c) {
      const double parts[] = {value_of(value, r, c), tangent == NULL ? 0 : value_of(tangent, r, c)};
      memcpy(element_of(dual, r, c), parts, sizeof parts);
    }
  }
}

static void join_lists(List* dual, const List* values, const List* tangents) {
  for (int i = 0; i < dual->count; ++i) {
    join(dual->arrays[i], values->arrays[i], tangents == NULL ? NULL : tangents->arrays[i]);
  }
}

/* The list of all that a training step writes. */
static List written_by(const Problem* p) {
  List all = {0};
  all.arrays[all.count++] = p->y;
  all.arrays[all.count++] = p->dx;
  const List* const lists[] = {&p->states_n, &p->dparameters, &p->dstates};
  for (int k = 0; k < 3; ++k) {
    for (int i = 0; i < lists[k]->count; ++i) all.arrays[all.count++] = lists[k]->arrays[i];
  }
  return all;
}

/* a += factor * b */
static void add(Array* a, double factor, const Array* b) {
  for (int64_t r = 0; r < a->rows; ++r) {
    for (int64_t c = 0; c < a->row_length; ++c) {
      store(element_of(a, r, c), a->tensor.dtype, value_of(a, r, c) + factor * value_of(b, r, c));
    }
  }
}

static void move(Problem* p, double factor, const Problem* direction) {
  add(p->x, factor, direction->x);
  for (int i = 0; i < p->parameters.count; ++i) {
    add(p->parameters.arrays[i], factor, direction->parameters.arrays[i]);
  }
  for (int i = 0; i < p->states.count; ++i) {
    add(p->states.arrays[i], factor, direction->states.arrays[i]);
  }
}

static void test_derivatives(const char* cell, int64_t gap) {
  const fusedrnn_run runs[] = {layer(cell, 0, 3, 5), placed(reversed(layer(cell, 0, 3, 5)), 0, 5),
                               layer(cell, 1, 10, 4)};
  const Setting doubles = {&kFormats[FLOAT64], 6, 3, 1, gap}, duals = {&kDual, 6, 3, 1, gap};
  snprintf(context, sizeof context, "%s, gap %d", cell, (int)gap);
  Problem* const p = new_problem(runs, 3, doubles);
  Problem* const direction = new_problem(runs, 3, doubles);
  Problem* const q = new_problem(runs, 3, duals);
  join(q->x, p->x, direction->x);
  join(q->dy, p->dy, NULL);
  join_lists(&q->parameters, &p->parameters, &direction->parameters);
  join_lists(&q->states, &p->states, &direction->states);
  join_lists(&q->dstates_n, &p->dstates_n, NULL);
  train(q);
  train(p);
  const List found = written_by(q), plain = written_by(p);
  const double step = 1e-5;
  for (int i = 0; i < found.count; ++i) { /* the values are those of the plain call */
    for (int64_t r = 0; r < plain.arrays[i]->rows; ++r) {
      for (int64_t c = 0; c < plain.arrays[i]->row_length; ++c) {
        double parts[2];
        memcpy(parts, element_of(found.arrays[i], r, c), sizeof parts);
        CHECK(fabs(parts[0] - value_of(plain.arrays[i], r, c)) < 1e-12);
      }
    }
    CHECK(is_guarded(found.arrays[i]));
  }
  move(p, step, direction);
  train(p);
  double* above[MAX_PARAMETERS];
  for (int i = 0; i < plain.count; ++i) {
    const Array* const a = plain.arrays[i];
    above[i] = allocate((size_t)(a->rows * a->row_length) * sizeof(double));
    for (int64_t r = 0; r < a->rows; ++r) {
      for (int64_t c = 0; c < a->row_length; ++c)
        above[i][r * a->row_length + c] = value_of(a, r, c);
    }
  }
  move(p, -2 * step, direction);
  train(p);
  for (int i = 0; i < plain.count; ++i) {
    const Array* const a = plain.arrays[i];
    for (int64_t r = 0; r < a->rows; ++r) {
      for (int64_t c = 0; c < a->row_length; ++c) {
        double parts[2];
        memcpy(parts, element_of(found.arrays[i], r, c), sizeof parts);
        const double slope = (above[i][r * a->row_length + c] - value_of(a, r, c)) / (2 * step);
        CHECK(fabs(parts[1] - slope) < 1e-7 * (1 + fabs(slope)));
      }
    }
    free(above[i]);
  }
  CHECK(reserve_is_guarded(q));
  free_problem(p);
  free_problem(direction);
  free_problem(q);
}

static void test_refusals(void) {
  const fusedrnn_run run = layer("gru", 0, 2, 3);
  const Setting duals = {&kDual, 2, 1, 0, 0};
  Problem* const q = new_problem(&run, 1, duals);
  context[0] = 0;
  q->x->tensor.dtype = kFormats[FLOAT64].type;
  EXPECT(fusedrnn_forward(&q->forward), FUSEDRNN_INVALID_TYPE,
         "x: expected dtype complex128 (the dtype of the network), got float64");
  free_problem(q);
  const fusedrnn_network_args args = {.size = sizeof args,
                                      .runs = &run,
                                      .num_runs = 1,
                                      .compute = FUSEDRNN_COMPUTE_BFLOAT16,
                                      .dtype = {kDLComplex, 64, 1}};
  fusedrnn_network* network = NULL;
  EXPECT_VALUE_ERROR(fusedrnn_network_create(&args, &network),
                     "compute: expected FUSEDRNN_COMPUTE_SAME with arrays of complex64, got "
                     "FUSEDRNN_COMPUTE_BFLOAT16");
}

int main(void) {
  if (!can_run()) return NOT_ON_THIS_MACHINE;
  for (int i = 0; i < CELLS; ++i) {
    if (strcmp(kCells[i], "rnn_relu") == 0) continue; /* differences across its kink */
    for (int64_t gap = 0; gap < 2; ++gap) test_derivatives(kCells[i], gap);
  }
  test_refusals();
  return result();
}
