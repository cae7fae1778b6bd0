// Problems made here, of any size: what a call makes of them is compared with what another makes of
// them, not with a reference.
#pragma once

#include <random>

#include "cells.h"
#include "golden_file.h"

namespace backend_test {

struct Spec {
  const char* cell = "lstm";
  int64_t T = 5, B = 3, I = 4, H = 6, P = 6;
  bool reverse = false;
  bool lengths = true, resets = true;
  DLDataType type = {kDLFloat, 32, 1};
  unsigned seed = 1;
};

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
  const auto size = [&](char letter) {
    return letter == 'I' ? spec.I : letter == 'P' ? spec.P : spec.H;
  };
  // An argument, and the result of the same shape: its gradient, or what it is the gradient of.
  const auto both = [&](const std::string& argument, const std::string& result,
                        const std::vector<int64_t>& shape) {
    one.arguments.emplace(argument, numbers(shape));
    one.results.emplace(result, golden::Array(shape, spec.type));
  };
  both("x", "dx", {spec.T, spec.B, spec.I});
  const CellTable& cell = kCells[cell_named(one.cell)];
  for (const auto& [name, rows, columns, optional] : cell.parameters) {
    std::vector<int64_t> shape = {rows.times * size(rows.letter)};
    if (columns.letter != 0) shape.push_back(columns.times * size(columns.letter));
    both(name, std::string("d") + name, shape);
  }
  for (const auto& [letter, units] : cell.states) {
    const std::string name = letter;
    both(name + "0", "d" + name + "0", {spec.B, size(units)});
    both("d" + name + "_n", name + "_n", {spec.B, size(units)});
  }
  both("dy", "y", {spec.T, spec.B, size(cell.states[0].size)});
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
