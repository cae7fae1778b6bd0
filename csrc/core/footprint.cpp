#include "core/footprint.h"

#include <cstdlib>
#include <numeric>
#include <string>
#include <utility>

#include "core/tensor.h"

namespace fusedrnn {
namespace {

int64_t address_of(const void* p) { return static_cast<int64_t>(reinterpret_cast<intptr_t>(p)); }

bool same_elements(const Footprint& a, const Footprint& b) {
  return a.begin == b.begin && a.end == b.end && a.pitch == b.pitch && a.row_bytes == b.row_bytes;
}

[[noreturn]] void throw_overlap(const Footprint& output, const Footprint& other) {
  throw_value_error(
      expected(output.name, "memory apart from " + other.name.text(), "overlapping memory"));
}

}  // namespace

Footprint::Footprint(const Name& tensor_name, const DLTensor& t)
    : name(tensor_name), begin(address_of(data_of(t))), end(begin) {
  if (element_count(t) == 0) return;
  const int64_t item = item_size(t);
  row_bytes = (t.ndim == 0 ? 1 : t.shape[t.ndim - 1]) * item;
  end += row_bytes;
  struct Axis {
    int64_t extent, stride;  // in bytes
  };
  Axis axes[2] = {{1, 0}, {1, 0}};
  for (int i = 0; i + 1 < t.ndim && i < 2; ++i) axes[i] = {t.shape[i], stride_of(t, i) * item};
  if (std::abs(axes[0].stride) > std::abs(axes[1].stride)) std::swap(axes[0], axes[1]);
  for (const Axis& axis : axes) {
    if (axis.extent < 2) continue;
    const int64_t reach = (axis.extent - 1) * axis.stride;
    // Strides that nest: each step is as long as everything below it.
    if (std::abs(axis.stride) < end - begin) overlaps_itself = true;
    (reach < 0 ? begin : end) += reach;
    pitch = std::gcd(pitch, axis.stride);
  }
}

Footprint::Footprint(const Name& memory_name, const void* memory, size_t bytes)
    : name(memory_name),
      begin(address_of(memory)),
      end(begin + static_cast<int64_t>(bytes)),
      row_bytes(static_cast<int64_t>(bytes)) {}

bool may_overlap(const Footprint& a, const Footprint& b) {
  if (a.begin == a.end || b.begin == b.end) return false;
  if (a.end <= b.begin || b.end <= a.begin) return false;
  const int64_t pitch = std::gcd(a.pitch, b.pitch);
  if (pitch == 0) return true;
  // Modulo the pitch every row of b starts at 0 and every row of a at `offset`.
  const int64_t offset = ((a.begin - b.begin) % pitch + pitch) % pitch;
  return offset < b.row_bytes || offset + a.row_bytes > pitch;
}

void check_apart(const std::vector<Footprint>& outputs, const std::vector<Footprint>& inputs) {
  for (size_t i = 0; i < outputs.size(); ++i) {
    const Footprint& output = outputs[i];
    if (output.overlaps_itself) {
      throw_value_error(
          expected(output.name, "rows that do not overlap", "strides that make them overlap"));
    }
    for (size_t j = 0; j < i; ++j) {
      if (may_overlap(output, outputs[j])) throw_overlap(output, outputs[j]);
    }
    for (const Footprint& input : inputs) {
      if (!may_overlap(output, input)) continue;
      const bool in_place = output.in_place >= 0 && output.in_place == input.in_place;
      if (!in_place || !same_elements(output, input)) throw_overlap(output, input);
    }
  }
}

}  // namespace fusedrnn
