// Long sums: float32's stay as exact as promised where their terms are many, as those of the
// weights' gradients are, over all steps and sequences. By the plain kernel, or by a cuBLASLt that
// adds up its terms one after the other.

#include <cmath>
#include <cstddef>
#include <functional>

#include "compare.h"
#include "random_case.h"

namespace {

using namespace backend_test;

// Of matrices [rows][columns].
struct At {
  const Array& array;
  int64_t columns;
  double operator()(int64_t row, int64_t column) const { return array[row * columns + column]; }
};

void check_close(const Array& got, int64_t columns,
                 const std::function<double(int64_t, int64_t)>& expected) {
  double wrong = 0, all = 0;
  for (int64_t i = 0; i < got.count(); ++i) {
    const double value = expected(i / columns, i % columns), off = got[i] - value;
    wrong += off * off;
    all += value * value;
  }
  CHECK(std::sqrt(wrong) <= 2e-6 * std::sqrt(all));
}

double sum(int64_t count, const std::function<double(int64_t)>& term) {
  double total = 0;
  for (int64_t i = 0; i < count; ++i) total += term(i);
  return total;
}

Case one_step(const char* cell, int64_t B, int64_t I, int64_t H) {
  Case one = random_case(
      {.cell = cell, .T = 1, .B = B, .I = I, .H = H, .lengths = false, .resets = false});
  one.arguments.erase("dh_n");
  one.results.erase("h_n");
  return one;
}

// One step of a cell without activation, whose deltas are the gradients of its output.
void test_many_sequences(int64_t B) {
  constexpr int64_t kInputs = 8, kUnits = 8;
  const Case one = one_step("rnn_identity", B, kInputs, kUnits);
  const At x{one.arguments.at("x"), kInputs}, dy{one.arguments.at("dy"), kUnits};
  check_close(train(one).at("dw_ih"), kInputs, [&](int64_t unit, int64_t input) {
    return sum(B, [&](int64_t b) { return dy(b, unit) * x(b, input); });
  });
}

// The product of x with transposed weights.
void test_many_inputs() {
  constexpr int64_t kInputs = 12345, kUnits = 40;
  const Case one = one_step("rnn_identity", 3, kInputs, kUnits);
  const Arrays& given = one.arguments;
  const At x{given.at("x"), kInputs}, w_ih{given.at("w_ih"), kInputs};
  const At h0{given.at("h0"), kUnits}, w_hh{given.at("w_hh"), kUnits};
  check_close(train(one).at("y"), kUnits, [&](int64_t b, int64_t unit) {
    return given.at("b_ih")[unit] + given.at("b_hh")[unit] +
           sum(kInputs, [&](int64_t i) { return x(b, i) * w_ih(unit, i); }) +
           sum(kUnits, [&](int64_t i) { return h0(b, i) * w_hh(unit, i); });
  });
}

// The gradient of x, a product of the deltas as they lie: of one sequence these are the gradients
// of the bias. Also added to what is there.
void test_many_units() {
  constexpr int64_t kInputs = 5, kUnits = 2050;
  Case one = one_step("lstm", 1, kInputs, kUnits);
  one.results.erase("dw_hh");
  const At w_ih{one.arguments.at("w_ih"), kInputs};
  for (const bool accumulate : {false, true}) {
    const Arrays got = train(one, {.accumulate_dx = accumulate});
    check_close(got.at("dx"), kInputs, [&](int64_t, int64_t input) {
      return (accumulate ? 1 : 0) +
             sum(4 * kUnits, [&](int64_t row) { return got.at("db_ih")[row] * w_ih(row, input); });
    });
  }
}

}  // namespace

int main() {
  // Around the longest sum that is taken at once, and far beyond it.
  for (const int64_t B : {8191, 8192, 8193, 16400, 100000}) test_many_sequences(B);
  test_many_inputs();
  test_many_units();
  return check::result();
}
