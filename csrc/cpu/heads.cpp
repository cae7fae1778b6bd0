#include "cpu/heads.h"

#include <algorithm>
#include <cstring>

#include "cpu/plan.h"

namespace fusedrnn::cpu {

int64_t heads_of_panels(const KernelShape& shape, const Problem& p) {
  // All are powers of two.
  const int64_t unit = std::max({panel_units(shape), int64_t{shape.recurrent_panel} * shape.width,
                                 int64_t{shape.depth_unit}});
  int64_t heads = std::clamp<int64_t>(p.heads, 1, std::max<int64_t>(p.H / unit, 1));
  while (heads > 1 && (p.heads % heads != 0 || p.H / heads % unit != 0)) --heads;
  return heads;
}

Block widen_heads(const KernelShape& shape, const Problem& p, int64_t heads, Matrix& weights) {
  int gates = 0;
  for (int i = 0; i < shape.stage_count; ++i) {
    const ProductShape& product = shape.stages[i].product;
    if (product.of_heads) gates = std::max(gates, product.first + product.gates);
  }
  const int64_t narrow = p.H / p.heads, wide = p.H / heads;
  const auto item = static_cast<int64_t>(shape.edge_bytes);
  char* row = nullptr;
  const int64_t rows = gates * p.H;
  Block memory = allocate(
      [&](Arena& arena) { arena.add(row, static_cast<size_t>(rows * wide), shape.edge_bytes); });
  const char* from = static_cast<const char*>(weights.data);
  std::memset(row, 0, static_cast<size_t>(rows * wide * item));
  const int64_t stride = weights.stride;
  weights = {row, wide};
  for (int64_t i = 0; i < rows; ++i, row += wide * item, from += stride * item) {
    const int64_t column = i % p.H / narrow * narrow % wide;
    std::memcpy(row + column * item, from, static_cast<size_t>(narrow * item));
  }
  return memory;
}

}  // namespace fusedrnn::cpu
