// The gradients of weights are sums over all steps and sequences: float32's stay as exact as
// promised where these are many. By the plain kernel, or by a cuBLASLt that adds up its terms one
// after the other.

#include <cmath>
#include <cstddef>

#include "compare.h"
#include "random_case.h"

namespace {

using namespace backend_test;

// One step of a cell without activation, whose deltas are the gradients of its output.
void test_sums_over_many_sequences(int64_t B) {
  constexpr int64_t kInputs = 8, kUnits = 8;
  Case one = random_case({.cell = FUSEDRNN_RNN_IDENTITY,
                          .T = 1,
                          .B = B,
                          .I = kInputs,
                          .H = kUnits,
                          .lengths = false,
                          .resets = false});
  one.arguments.erase("dh_n");
  one.results.erase("h_n");
  const Array& x = one.arguments.at("x");
  const Array& dy = one.arguments.at("dy");
  const Arrays got = train(one);
  double wrong = 0, all = 0;
  for (int64_t h = 0; h < kUnits; ++h) {
    for (int64_t i = 0; i < kInputs; ++i) {
      double sum = 0;
      for (int64_t b = 0; b < B; ++b) sum += dy[b * kUnits + h] * x[b * kInputs + i];
      const double off = got.at("dw_ih")[h * kInputs + i] - sum;
      wrong += off * off;
      all += sum * sum;
    }
  }
  CHECK(std::sqrt(wrong) <= 2e-6 * std::sqrt(all));
}

}  // namespace

int main() {
  // Around the length of a block, and far beyond it.
  for (const int64_t B : {4095, 4096, 4097, 8200, 100000}) test_sums_over_many_sequences(B);
  return check::result();
}
