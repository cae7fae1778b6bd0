// The cells by number and by name, with their tables.
#pragma once

#include <span>
#include <stdexcept>
#include <string>

#include "cells/registry.h"

namespace backend_test {

struct CellTable {
  const char* name;
  std::span<const fusedrnn::cells::Parameter> parameters;
  std::span<const fusedrnn::cells::State> states;
  std::span<const fusedrnn::cells::Constant> constants = {};
};

template <class Cell>
constexpr CellTable table_of(const char* name) {
  CellTable table{name, Cell::kParameters, Cell::kStates};
  if constexpr (requires { Cell::kConstants; }) table.constants = Cell::kConstants;
  return table;
}

#define FUSEDRNN_TABLE_OF_CELL(text, ...) table_of<__VA_ARGS__>(text),
inline constexpr CellTable kCells[] = {FUSEDRNN_FOR_EACH_CELL(FUSEDRNN_TABLE_OF_CELL)};

inline int cell_named(const std::string& name) {
  for (const CellTable& cell : kCells) {
    if (name == cell.name) return static_cast<int>(&cell - kCells);
  }
  throw std::runtime_error("no cell is named " + name);
}

}  // namespace backend_test
