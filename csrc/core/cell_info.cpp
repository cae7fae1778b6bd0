#include "core/cell_info.h"

#include "cells/registry.h"

namespace fusedrnn {
namespace {

#define FUSEDRNN_CELL_INFO(enumerator, name, ...) \
  {enumerator, name, __VA_ARGS__::kGates, __VA_ARGS__::kStates},
constexpr CellInfo kCells[] = {FUSEDRNN_FOR_EACH_CELL(FUSEDRNN_CELL_INFO)};
#undef FUSEDRNN_CELL_INFO

}  // namespace

const CellInfo* find_cell(int32_t cell) {
  for (const CellInfo& info : kCells) {
    if (static_cast<int32_t>(info.cell) == cell) return &info;
  }
  return nullptr;
}

const CellInfo* find_cell(const std::string& name) {
  for (const CellInfo& info : kCells) {
    if (name == info.name) return &info;
  }
  return nullptr;
}

std::string cell_names() {
  std::string names;
  for (const CellInfo& info : kCells) {
    if (!names.empty()) names += ", ";
    names += info.name;
  }
  return names;
}

}  // namespace fusedrnn
