#include "core/footprint.h"

#include <cstdlib>
#include <numeric>
#include <string>
#include <utility>

#include "core/error.h"
#include "core/tensor_checks.h"

namespace fusedrnn {
namespace {

struct Axis {
  int64_t extent;
  int64_t stride;  // in bytes
};

Footprint cover(const char* name, const void* data, Axis a, Axis b, int64_t row_bytes) {
  Footprint f;
  f.name = name;
  f.begin = static_cast<int64_t>(reinterpret_cast<intptr_t>(data));
  f.end = f.begin;
  f.row_bytes = row_bytes;
  if (data == nullptr || a.extent == 0 || b.extent == 0 || row_bytes == 0) return f;
  f.end += row_bytes;
  if (std::abs(a.stride) > std::abs(b.stride)) std::swap(a, b);
  for (const Axis& axis : {a, b}) {
    if (axis.extent < 2) continue;
    const int64_t reach = (axis.extent - 1) * axis.stride;
    // Strides that nest: each step is as long as everything below it.
    if (std::abs(axis.stride) < f.end - f.begin) f.overlaps_itself = true;
    (reach < 0 ? f.begin : f.end) += reach;
    f.pitch = std::gcd(f.pitch, axis.stride);
  }
  return f;
}

}  // namespace

Footprint footprint(const char* name, const Sequence& s, int64_t T, int64_t B, int64_t n,
                    int64_t item_bytes) {
  return cover(name, s.data, {T, s.t_stride * item_bytes}, {B, s.b_stride * item_bytes},
               n * item_bytes);
}

Footprint footprint(const char* name, const Matrix& m, int64_t rows, int64_t n,
                    int64_t item_bytes) {
  return cover(name, m.data, {1, 0}, {rows, m.stride * item_bytes}, n * item_bytes);
}

bool may_overlap(const Footprint& a, const Footprint& b) {
  if (a.begin == a.end || b.begin == b.end) return false;
  if (a.end <= b.begin || b.end <= a.begin) return false;
  const int64_t pitch = std::gcd(a.pitch, b.pitch);
  if (pitch == 0) return true;
  // Modulo the pitch every row of b starts at 0 and every row of a at `offset`.
  const int64_t offset = ((a.begin - b.begin) % pitch + pitch) % pitch;
  return offset < b.row_bytes || offset + a.row_bytes > pitch;
}

void check_apart(const Footprint& a, const Footprint& b) {
  if (!may_overlap(a, b)) return;
  throw_value_error(
      expected(a.name, std::string("memory apart from ") + b.name, "overlapping memory"));
}

void check_outputs_apart(std::span<const Footprint> outputs) {
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (outputs[i].overlaps_itself) {
      throw_value_error(
          expected(outputs[i].name, "rows that do not overlap", "strides that make them overlap"));
    }
    for (size_t j = 0; j < i; ++j) check_apart(outputs[i], outputs[j]);
  }
}

}  // namespace fusedrnn
