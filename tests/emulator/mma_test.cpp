// Products of small matrices and loads of their fragments, against plain loops.
#include "kernels/mma.h"

#include "fixture.h"

using namespace fixture;                  // NOLINT: a test program
using namespace fusedrnn::cuda::kernels;  // NOLINT
using fusedrnn::cuda::device::launch;
namespace device = fusedrnn::cuda::device;

namespace {

// Small whole numbers, so that every product and sum is exact.
float a_number(int i) { return static_cast<float>(i * 7 % 11 - 5); }
float b_number(int i) { return static_cast<float>(i * 5 % 13 - 6); }

template <class Number>
Number rounded(float x);
template <>
float rounded(float x) {
  return x;
}
template <>
device::Bf16 rounded(float x) {
  return device::to_bf16(x);
}
template <>
device::Half rounded(float x) {
  return device::to_half(x);
}

template <class Number>
std::vector<Number> numbers(int count, float (*number)(int)) {
  std::vector<Number> all;
  for (int i = 0; i < count; ++i) all.push_back(rounded<Number>(number(i)));
  return all;
}

std::vector<float> product(int depth, float start) {
  std::vector<float> d;
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 8; ++column) {
      float sum = start;
      for (int k = 0; k < depth; ++k) sum += a_number(row * depth + k) * b_number(k * 8 + column);
      d.push_back(sum);
    }
  }
  return d;
}

template <class Number>
void test_product_16() {
  const DeviceArray<Number> a(numbers<Number>(256, a_number)), b(numbers<Number>(128, b_number));
  const DeviceArray<float> d(128);
  launch(product_16<Number>, {.block = 32, .shared_bytes = 768, .name = "product_16"}, nullptr,
         a.data(), b.data(), d.data());
  CHECK(d.read() == product(16, 1));
}

void test_product_tf32() {
  const DeviceArray<float> a(numbers<float>(128, a_number)), b(numbers<float>(64, b_number));
  const DeviceArray<float> d(128);
  launch(product_tf32, {.block = 32, .name = "product_tf32"}, nullptr, a.data(), b.data(),
         d.data());
  CHECK(d.read() == product(8, 0));
}

void test_loads() {
  std::vector<device::Half> values(256);
  for (size_t i = 0; i < 256; ++i) values[i].bits = static_cast<uint16_t>(i);
  const DeviceArray<device::Half> a(values);
  const DeviceArray<uint32_t> out(2 * 7 * 32);
  launch(loads, {.block = 32, .shared_bytes = 512, .name = "loads"}, nullptr, a.data(), out.data());
  const std::vector<uint32_t> loaded = out.read();
  const uint32_t matrices[7] = {0, 0, 1, 0, 1, 2, 3};
  for (uint32_t i = 0; i < 7; ++i) {
    for (uint32_t lane = 0; lane < 32; ++lane) {
      const uint32_t first = 64 * matrices[i], g = lane / 4, t = lane % 4;
      const uint32_t straight = first + 8 * g + 2 * t, turned = first + 8 * (2 * t) + g;
      CHECK_EQUAL(loaded[i * 32 + lane], straight | (straight + 1) << 16);
      CHECK_EQUAL(loaded[(7 + i) * 32 + lane], turned | (turned + 8) << 16);
    }
  }
}

}  // namespace

int main() {
  in_many_orders(3, [] {
    test_product_16<device::Bf16>();
    test_product_16<device::Half>();
    test_product_tf32();
    test_loads();
  });
  return check::result();
}
