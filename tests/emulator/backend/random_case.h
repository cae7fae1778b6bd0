// Problems made here, of any size: what a call makes of them is compared with what another makes of
// them, not with a reference.
#pragma once

#include <random>

#include "golden_file.h"

namespace backend_test {

struct Spec {
  fusedrnn_cell cell = FUSEDRNN_LSTM;
  int64_t T = 5, B = 3, I = 4, H = 6;
  bool reverse = false;
  bool lengths = true, resets = true;
  DLDataType type = {kDLFloat, 32, 1};
  unsigned seed = 1;
};

inline int gates_of(fusedrnn_cell cell) {
  return cell == FUSEDRNN_LSTM ? 4 : cell >= FUSEDRNN_GRU ? 3 : 1;
}

inline void set_number(golden::Array& array, int64_t i, double number) {
  unsigned char* const p = array.bytes.data() + i * array.type.bits / 8;
  const auto value = static_cast<float>(number);
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if (array.type.bits == 64) {
    std::memcpy(p, &number, sizeof number);
  } else if (array.type.bits == 32) {
    std::memcpy(p, &value, sizeof value);
  } else if (array.type.code == kDLBfloat) {
    const auto upper = static_cast<uint16_t>(bits >> 16);
    std::memcpy(p, &upper, sizeof upper);
  } else {  // of numbers from 2^-14 to 1, cut off
    const auto half =
        static_cast<uint16_t>((bits >> 16 & 0x8000) | (((bits >> 13) - (112u << 10)) & 0x7fff));
    std::memcpy(p, &half, sizeof half);
  }
}

inline golden::Case random_case(const Spec& spec) {
  golden::Case one{};
  one.name = "random case";
  one.cell = spec.cell;
  one.reverse = spec.reverse;
  std::mt19937 random(spec.seed);
  const auto numbers = [&](std::vector<int64_t> shape) {
    golden::Array array(std::move(shape), spec.type);
    // Never so small that a narrow type cannot hold it.
    std::uniform_real_distribution<double> magnitude(0.01, 0.5);
    for (int64_t i = 0; i < array.count(); ++i) {
      set_number(array, i, random() % 2 != 0 ? magnitude(random) : -magnitude(random));
    }
    return array;
  };
  const int64_t rows = gates_of(spec.cell) * spec.H;
  const bool has_c = spec.cell == FUSEDRNN_LSTM;
  const std::vector<int64_t> state = {spec.B, spec.H};
  const std::vector<int64_t> output = {spec.T, spec.B, spec.H};
  const auto argument = [&](const char* name, const std::vector<int64_t>& shape) {
    one.arguments.emplace(name, numbers(shape));
  };
  const auto both = [&](const char* name, const std::string& gradient,
                        const std::vector<int64_t>& shape) {
    argument(name, shape);
    one.results.emplace(gradient, golden::Array(shape, spec.type));
  };
  both("x", "dx", {spec.T, spec.B, spec.I});
  both("w_ih", "dw_ih", {rows, spec.I});
  both("w_hh", "dw_hh", {rows, spec.H});
  both("b_ih", "db_ih", {rows});
  both("b_hh", "db_hh", {rows});
  both("h0", "dh0", state);
  both("dh_n", "h_n", state);
  both("dy", "y", output);
  if (has_c) {
    both("c0", "dc0", state);
    both("dc_n", "c_n", state);
  }
  if (spec.lengths) {
    golden::Array lengths({spec.B}, {kDLInt, 64, 1});
    for (int64_t b = 0; b < spec.B; ++b) {
      const auto length = static_cast<int64_t>(random() % static_cast<unsigned>(spec.T + 1));
      std::memcpy(lengths.bytes.data() + b * 8, &length, 8);
    }
    one.arguments.emplace("lengths", std::move(lengths));
  }
  if (spec.resets) {
    golden::Array resets({spec.T, spec.B}, {kDLBool, 8, 1});
    for (unsigned char& byte : resets.bytes) byte = random() % 4 == 0;
    one.arguments.emplace("resets", std::move(resets));
  }
  return one;
}

}  // namespace backend_test
