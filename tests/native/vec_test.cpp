// The vector type of one instruction set: what its interface (isa/scalar/vec.h) promises and the
// results of whole kernels would not show; and exp and softplus, which no cell shows over their
// whole range. Compiled with the set's flags, so it stays in C where it calls anything;
// vec_test_main.cpp runs it.

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cpu/kernels/number.h"
#include FUSEDRNN_VEC_HEADER

#include "cpu/kernels/activations.h"

extern "C" int vec_test();

namespace {

namespace isa = fusedrnn::cpu::FUSEDRNN_ISA;
using fusedrnn::cpu::Bf16;
using fusedrnn::cpu::Half;
using isa::bits_of;
using isa::float_of;
using isa::Vec;

int failures = 0;

void fail(const char* what, double argument) {
  if (++failures <= 20) fprintf(stderr, "%s at %a\n", what, argument);
}

#define CHECK_AT(condition, argument) ((condition) ? void() : fail(#condition, argument))

template <class Real, class V>
Real lane(V vector, int i) {
  Real lanes[V::width];
  vector.store(lanes);
  return lanes[i];
}

// --- memory ---

// A page that ends where nothing may be touched.
class LastPage {
 public:
  LastPage() : size_(static_cast<size_t>(sysconf(_SC_PAGESIZE))) {
    void* const pages =
        mmap(nullptr, 2 * size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) {
      fail("no memory for a page and its guard", 0);
      return;
    }
    begin_ = static_cast<unsigned char*>(pages);
    if (mprotect(end(), size_, PROT_NONE) != 0) fail("no guard behind the page", 0);
  }
  ~LastPage() {
    if (begin_ != nullptr) munmap(begin_, 2 * size_);
  }
  LastPage(const LastPage&) = delete;
  LastPage& operator=(const LastPage&) = delete;

  unsigned char* end() const { return begin_ + size_; }

 private:
  size_t size_;
  unsigned char* begin_ = nullptr;
};

// load(p, n) and store(p, n) of a Real or of a 16-bit number, of which `one` is 1.
template <class Real, class Number>
void test_first_lanes(const LastPage& page, Number one) {
  using V = Vec<Real>;
  const V ones = V::set(Real(1));
  for (int n = 0; n <= V::width; ++n) {
    Number* const last = reinterpret_cast<Number*>(page.end()) - n;
    for (int i = 0; i < n; ++i) last[i] = one;
    const V loaded = V::load(last, n);
    for (int i = 0; i < V::width; ++i) CHECK_AT(lane<Real>(loaded, i) == (i < n ? 1 : 0), n);

    memset(last, 0xff, static_cast<size_t>(n) * sizeof one);
    ones.store(last, n);
    for (int i = 0; i < n; ++i) CHECK_AT(memcmp(last + i, &one, sizeof one) == 0, n);

    Number among[V::width + 2], untouched;
    memset(among, 0xff, sizeof among);
    memset(&untouched, 0xff, sizeof untouched);
    ones.store(among + 1, n);
    for (int i = 0; i < V::width + 2; ++i) {
      const Number& expected = i >= 1 && i <= n ? one : untouched;
      CHECK_AT(memcmp(among + i, &expected, sizeof one) == 0, n);
    }
  }
}

// --- lanes ---

template <class Real>
void test_transpose() {
  using V = Vec<Real>;
  constexpr int W = V::width;
  V rows[W];
  Real values[W];
  for (int i = 0; i < W; ++i) {
    for (int j = 0; j < W; ++j) values[j] = Real(100 * i + j);
    rows[i] = V::load(values);
  }
  V::transpose(rows);
  for (int i = 0; i < W; ++i) {
    for (int j = 0; j < W; ++j) CHECK_AT(lane<Real>(rows[i], j) == Real(100 * j + i), i);
  }
}

template <class Real>
bool same_bits(Real a, Real b) {
  return memcmp(&a, &b, sizeof a) == 0;
}

template <class Real>
void test_pair(Real a, Real b) {
  using V = Vec<Real>;
  const V x = V::set(a), y = V::set(b);
  CHECK_AT(same_bits(lane<Real>(min(x, y), 0), a < b ? a : b), a);
  CHECK_AT(same_bits(lane<Real>(max(x, y), 0), a > b ? a : b), a);
  const V one = V::set(Real(1)), two = V::set(Real(2));
  CHECK_AT(lane<Real>(select(x <= y, one, two), 0) == (a <= b ? 1 : 2), a);
  CHECK_AT(lane<Real>(select(not_less(x, y), one, two), 0) == (a < b ? 2 : 1), a);
  CHECK_AT(same_bits(lane<Real>(zero_unless(not_less(x, y), y), 0), a < b ? Real(0) : b), a);
  CHECK_AT(same_bits(lane<Real>(copysign(x, y), 0), Real(__builtin_copysign(a, b))), a);
}

template <class Real>
void test_comparisons() {
  const Real infinity = Real(__builtin_inf()), nan = Real(__builtin_nan(""));
  const Real values[] = {0, Real(-0.0), 1, -1, Real(2.5), infinity, -infinity, nan, -nan};
  for (const Real a : values) {
    for (const Real b : values) test_pair(a, b);
    CHECK_AT(same_bits(lane<Real>(abs(Vec<Real>::set(a)), 0), Real(__builtin_fabs(a))), a);
    CHECK_AT(same_bits(lane<Real>(-Vec<Real>::set(a), 0), -a), a);
  }
}

// Numbers whose product needs all bits of both: fused, what rounding took from it remains.
template <class Real>
void test_multiply_add() {
  using V = Vec<Real>;
  const Real tiny = sizeof(Real) == 4 ? Real(0x1p-20) : Real(0x1p-40);
  const V a = V::set(1 + tiny), b = V::set(1 - tiny);
  const Real remains = isa::kFusedMultiplyAdd ? tiny * tiny : 0;
  CHECK_AT(lane<Real>(fma(a, b, V::set(-1)), 0) == -remains, tiny);
  CHECK_AT(lane<Real>(fnma(a, b, V::set(1)), 0) == remains, tiny);
  const V two = V::set(2), three = V::set(3), ten = V::set(10);
  CHECK_AT(lane<Real>(fma(two, three, ten), 0) == 16, 2);
  CHECK_AT(lane<Real>(fnma(two, three, ten), 0) == 4, 2);
}

template <class Real>
void test_lanes(const LastPage& page) {
  test_first_lanes<Real>(page, Real(1));
  test_transpose<Real>();
  test_comparisons<Real>();
  test_multiply_add<Real>();
}

// --- conversions, against their definitions ---

constexpr uint32_t kInfinity = 0x7f800000;

bool is_nan(uint32_t bits) { return (bits & 0x7fffffff) > kInfinity; }

float widen(Bf16 x) { return float_of(uint32_t{x.bits} << 16); }

float widen(Half x) {
  const int exponent = x.bits >> 10 & 31, fraction = x.bits & 0x3ff;
  double magnitude = ldexp(1024.0 + fraction, exponent - 25);
  if (exponent == 0) magnitude = ldexp(double(fraction), -24);
  if (exponent == 31) magnitude = fraction != 0 ? NAN : INFINITY;
  return static_cast<float>(__builtin_copysign(magnitude, (x.bits & 0x8000) != 0 ? -1.0 : 1.0));
}

// The nearer of the two neighbours, of two equally near the even one.
void narrow(float x, Bf16& result) {
  const uint32_t bits = bits_of(x), below = bits >> 16, rest = bits & 0xffff;
  const bool up = rest > 0x8000 || (rest == 0x8000 && below % 2 == 1);
  result.bits = static_cast<uint16_t>(below + up);
}

void narrow(float x, Half& result) {
  const double magnitude = fabs(static_cast<double>(x));
  const unsigned sign = __builtin_signbit(x) ? 0x8000 : 0;
  // In units of the last place, which are those of the smallest normal number below it.
  const int exponent = magnitude < 0x1p-14 ? -14 : ilogb(magnitude);
  double units = magnitude >= 65536 ? 2048 : nearbyint(ldexp(magnitude, 10 - exponent));
  int biased = magnitude >= 65536 ? 30 : exponent + 15;
  if (units >= 2048) {
    units /= 2;
    ++biased;
  }
  unsigned bits = 0x7c00;
  if (units < 1024) {
    bits = static_cast<unsigned>(units);
  } else if (biased < 31) {
    bits = static_cast<unsigned>(biased) << 10 | (static_cast<unsigned>(units) - 1024);
  }
  result.bits = static_cast<uint16_t>(sign | bits);
}

template <class Number>
void check_widened(Number x) {
  const uint32_t expected = bits_of(widen(x));
  Number copies[Vec<float>::width];
  for (Number& copy : copies) copy = x;
  const uint32_t got = bits_of(lane<float>(Vec<float>::load(copies), Vec<float>::width - 1));
  if (is_nan(expected)) {
    CHECK_AT(is_nan(got) && got >> 31 == expected >> 31, x.bits);
  } else {
    CHECK_AT(got == expected, x.bits);
  }
}

// `quiet`: exponent and first bit of the fraction of a quiet NaN.
template <class Number>
void check_narrowed(float x, unsigned quiet) {
  Number got[Vec<float>::width], expected;
  Vec<float>::set(x).store(got);
  const unsigned bits = got[Vec<float>::width - 1].bits;
  if (is_nan(bits_of(x))) {
    CHECK_AT((bits & quiet) == quiet && bits >> 15 == bits_of(x) >> 31, x);
  } else {
    narrow(x, expected);
    CHECK_AT(bits == expected.bits, x);
  }
}

// Every 16-bit pattern, and every upper half of a float with lower halves at, beside and between
// the points where one of the types rounds the other way.
void test_conversions() {
  const uint32_t lower_halves[] = {0,      1,      0x0fff, 0x1000, 0x1001, 0x2000, 0x2fff, 0x3000,
                                   0x3001, 0x5000, 0x7fff, 0x8000, 0x8001, 0xb000, 0xf000, 0xffff};
  for (uint32_t upper = 0; upper < 0x10000; ++upper) {
    check_widened(Bf16{static_cast<uint16_t>(upper)});
    check_widened(Half{static_cast<uint16_t>(upper)});
    for (const uint32_t lower : lower_halves) {
      check_narrowed<Bf16>(float_of(upper << 16 | lower), 0x7fc0);
      check_narrowed<Half>(float_of(upper << 16 | lower), 0x7e00);
    }
  }
}

// Lanes keep their places.
template <class Number>
void test_order() {
  constexpr int W = Vec<float>::width;
  float values[W];
  for (int i = 0; i < W; ++i) values[i] = static_cast<float>(i);
  Number narrowed[W];
  Vec<float>::load(values).store(narrowed);
  const Vec<float> widened = Vec<float>::load(narrowed);
  for (int i = 0; i < W; ++i) {
    CHECK_AT(widen(narrowed[i]) == values[i], i);
    CHECK_AT(lane<float>(widened, i) == values[i], i);
  }
}

// --- exp and softplus, against those of C in a wider type: bounds of docs/activations.md ---

template <class Real>
struct Wider;
template <>
struct Wider<float> {
  using type = double;
  static constexpr int bits = 24, least_exponent = -126;
  static constexpr float epsilon = __FLT_EPSILON__;
  static type exp(float x) { return ::exp(static_cast<type>(x)); }
  static type softplus(float x) {
    return (x > 0 ? static_cast<type>(x) : 0) + log1p(::exp(-fabs(static_cast<type>(x))));
  }
};
template <>
struct Wider<double> {
  using type = long double;
  static constexpr int bits = 53, least_exponent = -1022;
  static constexpr double epsilon = __DBL_EPSILON__;
  static type exp(double x) { return expl(static_cast<type>(x)); }
  static type softplus(double x) {
    return (x > 0 ? static_cast<type>(x) : 0) + log1pl(expl(-fabsl(static_cast<type>(x))));
  }
};

// Within `bound` ulp where the exact result is a normal number; infinite with it, and beside zero
// below.
template <class Real>
void check_result(Real got, typename Wider<Real>::type exact, double bound, Real x) {
  using W = Wider<Real>;
  const Real rounded = static_cast<Real>(exact);
  if (exact != exact || rounded == Real(__builtin_inf())) {
    CHECK_AT(exact != exact ? got != got : got == rounded, x);
    return;
  }
  const Real least = static_cast<Real>(ldexp(1.0, W::least_exponent));
  if (exact < static_cast<typename W::type>(least)) {
    CHECK_AT(got >= 0 && got <= least, x);
    return;
  }
  int exponent = 0;
  frexp(static_cast<double>(exact), &exponent);
  const auto error = static_cast<typename W::type>(got) - exact;
  const double ulp = static_cast<double>(ldexpl(error, W::bits - exponent));
  CHECK_AT(ulp <= bound && -ulp <= bound, x);
}

template <class Real>
void check_exp_and_softplus(Real x) {
  using V = Vec<Real>;
  Real values[V::width];
  for (int i = 0; i < V::width; ++i) values[i] = i % 2 == 0 ? x : Real(0.5);
  const V arguments = V::load(values), e = exp(arguments), s = softplus(arguments);
  check_result(lane<Real>(e, V::width - 2), Wider<Real>::exp(x), 1.25, x);
  check_result(lane<Real>(s, V::width - 2), Wider<Real>::softplus(x), 2.25, x);
  CHECK_AT(same_bits(lane<Real>(e, 0), lane<Real>(e, V::width - 2)), x);
  CHECK_AT(same_bits(lane<Real>(s, 0), lane<Real>(s, V::width - 2)), x);
}

template <class Real>
void test_exp_and_softplus() {
  const Real infinity = Real(__builtin_inf()), nan = Real(__builtin_nan(""));
  const Real most = sizeof(Real) == 4 ? Real(__FLT_MAX__) : Real(__DBL_MAX__);
  const Real special[] = {0, Real(-0.0), infinity, -infinity, nan, -nan, most, -most};
  for (const Real x : special) check_exp_and_softplus(x);
  // From where the results underflow to where e^x overflows, and beyond.
  const Real range = sizeof(Real) == 4 ? Real(110) : Real(760);
  constexpr int kCount = 50000;
  for (int i = -kCount; i <= kCount; ++i) check_exp_and_softplus(range * Real(i) / Real(kCount));
  // Numbers of every size, and halves of ln(2), where the reduction takes its steps.
  for (Real size = range; size > Real(1e-30); size *= Real(0.997)) {
    check_exp_and_softplus(size);
    check_exp_and_softplus(-size);
  }
  for (int n = -2200; n <= 2200; ++n) {
    const Real step = Real(n * 0.34657359027997265);
    if (fabs(static_cast<double>(step)) > static_cast<double>(range)) continue;
    for (int i = -4; i <= 4; ++i) {
      check_exp_and_softplus(static_cast<Real>(step * (1 + Real(i) * Wider<Real>::epsilon)));
    }
  }
}

}  // namespace

int vec_test() {
  failures = 0;
  const LastPage page;
  if (failures > 0) return failures;
  test_lanes<float>(page);
  test_lanes<double>(page);
  test_first_lanes<float>(page, Bf16{0x3f80});
  test_first_lanes<float>(page, Half{0x3c00});
  test_conversions();
  test_order<Bf16>();
  test_order<Half>();
  test_exp_and_softplus<float>();
  test_exp_and_softplus<double>();
  return failures;
}
