// What core and the bindings know of a cell: its name and how many gates and states it has.
#pragma once

#include <cstdint>
#include <string>

#include "fusedrnn/fusedrnn.h"

namespace fusedrnn {

struct CellInfo {
  fusedrnn_cell cell;
  const char* name;
  int gates;   // G
  int states;  // 1: h, 2: h and c
};

// Null where there is no such cell.
const CellInfo* find_cell(int32_t cell);
const CellInfo* find_cell(const std::string& name);

// "rnn_tanh, rnn_relu, ...", for messages.
std::string cell_names();

}  // namespace fusedrnn
