#include "core/cell_table.h"

#include "cells/registry.h"
#include "core/problem.h"

namespace fusedrnn {
namespace {

template <class Cell>
constexpr CellTable table_of(const char* name) {
  static_assert(cells::length(Cell::kParameters) <= kMaxParameters);
  static_assert(cells::kStateCount<Cell> <= kMaxStates);
  return {name, Cell::kParameters, Cell::kStates, Cell::kStates[0].size == 'P'};
}

#define FUSEDRNN_CELL_TABLE(name, ...) table_of<__VA_ARGS__>(name),
constexpr CellTable kCells[] = {FUSEDRNN_FOR_EACH_CELL(FUSEDRNN_CELL_TABLE)};
#undef FUSEDRNN_CELL_TABLE

}  // namespace

const CellTable* find_cell(std::string_view name) {
  for (const CellTable& cell : kCells) {
    if (name == cell.name) return &cell;
  }
  return nullptr;
}

int cell_number(const CellTable& cell) { return static_cast<int>(&cell - kCells); }

std::string cell_names() {
  std::string names;
  for (const CellTable& cell : kCells) {
    if (!names.empty()) names += ", ";
    names += cell.name;
  }
  return names;
}

}  // namespace fusedrnn
