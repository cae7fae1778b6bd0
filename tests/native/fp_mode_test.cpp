// FlushDenormals: what it does to arithmetic, and that it leaves no trace.

#include "cpu/fp_mode.h"

#include <cfenv>
#include <limits>

#include "check.h"

namespace {

using fusedrnn::cpu::FlushDenormals;

template <class T>
T multiply(T a, T b) {
  volatile T x = a, y = b;  // at run time
  return x * y;
}

template <class T>
void test_flushes() {
  const T smallest_normal = std::numeric_limits<T>::min();
  const T denormal = std::numeric_limits<T>::denorm_min();
  CHECK(multiply(smallest_normal, T(0.5)) != 0);
  CHECK(multiply(denormal, T(2)) != 0);
  {
    const FlushDenormals flush;
#if defined(__SSE2__) || defined(__aarch64__)
    CHECK_EQUAL(multiply(smallest_normal, T(0.5)), T(0));           // a denormal result
    CHECK_EQUAL(multiply(denormal, T(2) / smallest_normal), T(0));  // a denormal operand
#endif
    CHECK_EQUAL(multiply(smallest_normal, T(2)), 2 * smallest_normal);
    {
      const FlushDenormals nested;
    }
#if defined(__SSE2__) || defined(__aarch64__)
    CHECK_EQUAL(multiply(smallest_normal, T(0.5)), T(0));
#endif
  }
  CHECK(multiply(smallest_normal, T(0.5)) != 0);
  CHECK(multiply(denormal, T(2)) != 0);
}

void test_caller_s_mode_is_set_aside() {
  const auto third = [] {
    volatile double one = 1, three = 3;
    return one / three;
  };
  std::fesetround(FE_UPWARD);
  std::feclearexcept(FE_ALL_EXCEPT);
  std::feraiseexcept(FE_UNDERFLOW);
  const double upward = third();
  std::feclearexcept(FE_INEXACT);
  {
    const FlushDenormals flush;
    CHECK(third() < upward);
    CHECK_EQUAL(multiply(0.0, std::numeric_limits<double>::infinity()) == 0, false);
  }
  CHECK_EQUAL(std::fegetround(), FE_UPWARD);
  CHECK_EQUAL(third(), upward);
  std::feclearexcept(FE_INEXACT);
  CHECK_EQUAL(std::fetestexcept(FE_ALL_EXCEPT), FE_UNDERFLOW);  // neither lost nor added
  std::fesetround(FE_TONEAREST);
}

}  // namespace

int main() {
  test_flushes<float>();
  test_flushes<double>();
  test_caller_s_mode_is_set_aside();
  return check::result();
}
