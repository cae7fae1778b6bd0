// Whole calls and how their results compare.
#pragma once

#include "call.h"
#include "check.h"
#include "emulator.h"

namespace backend_test {

struct Stream {
  void* handle = emulator_new_stream();
  ~Stream() { emulator_end_stream(handle); }
};

inline Arrays train(const Case& one, const Options& options = {}) {
  Call call(one, options);
  require(call.forward(), one);
  require(call.backward(), one);
  return call.outputs();
}

// All that `some` has is in `all`, bit by bit.
inline void check_same(const Arrays& some, const Arrays& all, const std::string& who) {
  CHECK(!some.empty());
  for (const auto& [name, array] : some) {
    if (array.bytes != all.at(name).bytes) {
      check::fail(__FILE__, __LINE__, name + " differs " + who);
    }
  }
}

// The same, but for the gradients of parameters in float32: sums over all steps and sequences,
// which group otherwise where rows that do not exist are left out.
inline void check_same_but_sums(const Arrays& got, const Arrays& expected, const std::string& who) {
  Arrays own;
  for (const auto& [name, array] : got) {
    const bool is_own = name == "y" || name == "dx" || name.ends_with("_n") || name.ends_with("0");
    if (is_own) {
      own.emplace(name, array);
      continue;
    }
    const double error = golden::relative_error(array, expected.at(name));
    if (!(error <= 1e-5)) check::fail(__FILE__, __LINE__, name + " is off " + who);
  }
  check_same(own, expected, who);
}

inline void check_finite(const Arrays& arrays, const std::string& where) {
  for (const auto& [name, array] : arrays) {
    for (int64_t i = 0; i < array.count(); ++i) {
      if (std::isfinite(array[i])) continue;
      check::fail(__FILE__, __LINE__, name + " is not finite " + where);
      break;
    }
  }
}

}  // namespace backend_test
