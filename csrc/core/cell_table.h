// The tables of all cells (cells/cell.h), for code that is not compiled for each of them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "cells/cell.h"

namespace fusedrnn {

struct CellTable {
  const char* name;
  std::span<const cells::Parameter> parameters;
  std::span<const cells::State> states;
  bool projects;  // whether P is a number of its own
};

// Null where there is no such cell.
const CellTable* find_cell(std::string_view name);

int cell_number(const CellTable& cell);  // in cells/registry.h

// "rnn_tanh, rnn_relu, ...", for messages.
std::string cell_names();

}  // namespace fusedrnn
