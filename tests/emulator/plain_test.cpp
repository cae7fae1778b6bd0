// Kernels that are right: what they compute, in order and in drawn orders.
#include "kernels/plain.h"

#include <cmath>
#include <limits>

#include "fixture.h"

using namespace fixture;                  // NOLINT: a test program
using namespace fusedrnn::cuda::kernels;  // NOLINT
using fusedrnn::cuda::device::launch;

namespace {

void test_reverse() {
  std::vector<float> values(256), expected(256);
  for (int i = 0; i < 256; ++i) {
    values[static_cast<size_t>(i)] = static_cast<float>(i);
    expected[static_cast<size_t>(i / 128 * 128 + 127 - i % 128)] = static_cast<float>(i);
  }
  const DeviceArray<float> in(values), out(256);
  launch(reverse<float>, {.grid_x = 2, .shared_bytes = 512, .name = "reverse"}, nullptr, in.data(),
         out.data());
  CHECK(out.read() == expected);
}

void test_sum() {
  const DeviceArray<float> in(384, 0.5f), out(3);
  launch(sum, {.grid_x = 3, .shared_bytes = 16, .name = "sum"}, nullptr, in.data(), out.data());
  CHECK(out.read() == std::vector<float>(3, 64.0f));
}

void test_shuffles() {
  const DeviceArray<double> out(128);
  launch(shuffles, {.block = 32, .name = "shuffles"}, nullptr, out.data());
  const std::vector<double> values = out.read();
  for (size_t lane = 0; lane < 32; ++lane) {
    CHECK_EQUAL(values[lane], 5.0);
    CHECK_EQUAL(values[32 + lane], static_cast<double>(lane < 29 ? lane + 3 : lane));
    CHECK_EQUAL(values[64 + lane], static_cast<double>(lane ^ 16u));
    CHECK_EQUAL(values[96 + lane], static_cast<double>(0x49249249u));
  }
}

void test_places() {
  const DeviceArray<int> out(24, -1);
  launch(places, {.grid_x = 2, .grid_y = 3, .grid_z = 4, .block = 32, .name = "places"}, nullptr,
         out.data());
  std::vector<int> expected;
  for (int z = 0; z < 4; ++z) {
    for (int y = 0; y < 3; ++y) {
      for (int x = 0; x < 2; ++x) expected.push_back(x + 10 * y + 100 * z);
    }
  }
  CHECK(out.read() == expected);
}

void test_round_trips() {
  // Ties, numbers that are subnormal or too large in one of the formats, and a NaN whose fraction
  // would be rounded away.
  constexpr float inf = std::numeric_limits<float>::infinity(), most = 0x1.fffffep127f;
  const float nan = std::nanf("1");
  const std::vector<float> values = {1,        0x1.01p0f, 0x1.03p0f,  -2,        65504, 65520,
                                     0x1p-24f, 0x1p-25f,  0x3p-26f,   0x1p-130f, inf,   -inf,
                                     nan,      most,      0x1.002p0f, -0.0f};
  const DeviceArray<float> in(values), out(48);
  launch(round_trips, {.block = 16, .name = "round_trips"}, nullptr, in.data(), out.data());
  const std::vector<float> rounded = out.read();
  const std::vector<float> expected = {
      1,         1,         0x1.04p0f, -2,    65536,      65536,    0x1p-24f, 0x1p-25f,
      0x3p-26f,  0x1p-130f,  // bfloat16
      inf,       -inf,      nan,       inf,   1,          -0.0f,    1,        0x1.01p0f,
      0x1.03p0f, -2,        65504,     inf,   0x1p-24f,   0,        0x1p-24f, 0,  // float16
      inf,       -inf,      nan,       inf,   1,          -0.0f,    1,        0x1.01p0f,
      0x1.03p0f, -2,        65504,     65536, 0x1p-24f,   0x1p-25f, 0x3p-26f, 0x1p-130f,  // tf32
      inf,       -inf,      nan,       inf,   0x1.004p0f, -0.0f};
  for (size_t i = 0; i < expected.size(); ++i) {
    const bool both_nan = std::isnan(rounded[i]) && std::isnan(expected[i]);
    if (!both_nan) CHECK_EQUAL(rounded[i], expected[i]);
    CHECK(both_nan || std::signbit(rounded[i]) == std::signbit(expected[i]));
  }
}

template <class Real>
void test_functions(double tolerance) {
  const std::vector<Real> values = {Real(-800), Real(-20), Real(-1e-5), 0, Real(0.3), 2, 9, 700};
  const DeviceArray<Real> in(values), out(40);
  launch(functions<Real>, {.block = 8, .name = "functions"}, nullptr, in.data(), out.data());
  const std::vector<Real> results = out.read();
  const auto expect = [&](size_t index, double expected) {
    const double rounded = static_cast<double>(static_cast<Real>(expected));
    const bool close = std::abs(results[index] - rounded) <= tolerance * std::abs(rounded);
    CHECK(close || results[index] == rounded || std::abs(rounded) < 1e-37);
  };
  for (size_t i = 0; i < 8; ++i) {
    const double x = values[i];
    expect(i, std::exp(x));
    expect(8 + i, std::tanh(x));
    expect(16 + i, 1 / (1 + std::exp(-x)));
    expect(24 + i, x * x + 1);
    expect(32 + i, std::max(x, 0.0));
  }
}

}  // namespace

int main() {
  in_many_orders(10, [] {
    test_reverse();
    test_sum();
    test_shuffles();
    test_places();
  });
  test_round_trips();
  test_functions<float>(4e-7);
  test_functions<double>(1e-15);
  return check::result();
}
