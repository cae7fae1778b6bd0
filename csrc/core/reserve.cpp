#include "core/reserve.h"

#include <algorithm>
#include <new>
#include <string_view>

#include "core/cuda_library.h"
#include "core/dtype.h"
#include "core/empty.h"
#include "cpu/engine.h"
#include "cpu/isa/detect.h"

namespace fusedrnn {
namespace {

constexpr uint64_t kMagic = 0x31'56'52'4e'4e'52'44'46;  // "FDRNNRV1"
constexpr size_t kLine = 64, kCudaAlignment = 256;

size_t row_bytes(const Network& network, const Row& row, int64_t T, int64_t B) {
  size_t bytes = 0;
  const bool overflow = __builtin_mul_overflow(T * B, row.width, &bytes) ||
                        __builtin_mul_overflow(bytes, item_size(network.dtype), &bytes);
  if (overflow) throw std::bad_alloc();
  return bytes;
}

// FNV-1a.
class Digest {
 public:
  void add(std::string_view text) {
    for (const char c : text) add_byte(static_cast<unsigned char>(c));
    add_byte(0);
  }
  void add(int64_t number) {
    for (int i = 0; i < 8; ++i)
      add_byte(static_cast<unsigned char>(static_cast<uint64_t>(number) >> (8 * i)));
  }
  uint64_t value() const { return value_; }

 private:
  void add_byte(unsigned char byte) { value_ = (value_ ^ byte) * 0x100000001b3u; }
  uint64_t value_ = 0xcbf29ce484222325u;
};

}  // namespace

size_t ReserveLayout::take(size_t bytes, size_t alignment) {
  const size_t begin = total;
  if (__builtin_add_overflow(total, bytes, &total) || total > SIZE_MAX / 2) throw std::bad_alloc();
  total = (total + alignment - 1) / alignment * alignment;
  return begin;
}

ReserveLayout ReserveLayout::of_cpu(const Network& network, int64_t T, int64_t B) {
  ReserveLayout layout;
  layout.take(sizeof(ReserveHeader), kLine);
  for (const bool reverse : {false, true}) {
    const bool used = std::any_of(network.runs.begin(), network.runs.end(),
                                  [&](const Run& run) { return run.problem.reverse == reverse; });
    layout.flags[reverse] = layout.take(used ? static_cast<size_t>(T * B) : 0, kLine);
  }
  for (size_t row = 0; row < network.rows.size(); ++row) {
    const bool between = row > 0 && row + 1 < network.rows.size();
    layout.rows.push_back(
        layout.take(between ? row_bytes(network, network.rows[row], T, B) : 0, kLine));
  }
  for (const Run& run : network.runs) {
    const Problem p = run.at(T, B);
    layout.runs.push_back(layout.take(is_empty(p) ? 0 : cpu::reserve_bytes(p), kLine));
  }
  return layout;
}

ReserveLayout ReserveLayout::of_cuda(const Network& network, int64_t T, int64_t B) {
  const CudaPlugin& plugin = cuda_plugin();
  ReserveLayout layout;
  for (size_t row = 0; row < network.rows.size(); ++row) {
    const bool between = row > 0 && row + 1 < network.rows.size();
    layout.rows.push_back(
        layout.take(between ? row_bytes(network, network.rows[row], T, B) : 0, kCudaAlignment));
  }
  for (const Run& run : network.runs) {
    const Problem p = run.at(T, B);
    size_t bytes = 0;
    check_cuda(plugin, plugin.reserve_bytes(&p, &bytes));
    layout.runs.push_back(layout.take(bytes, kCudaAlignment));
  }
  return layout;
}

ReserveLayout ReserveLayout::of_call(const Network& network, int64_t T, int64_t B, bool flags) {
  ReserveLayout layout;
  if (flags) {
    for (size_t& direction : layout.flags)
      direction = layout.take(static_cast<size_t>(T * B), kLine);
  }
  // A row is needed from the runs that write it to those that read it, which write later rows: in
  // this order, or backward in the other. The same places serve both.
  std::vector<size_t> last_use(network.rows.size(), 0);
  for (const Run& run : network.runs) {
    last_use[static_cast<size_t>(run.reads)] = static_cast<size_t>(run.writes);
  }
  struct Place {
    size_t bytes, last_use;
  };
  std::vector<Place> places;
  std::vector<size_t> place_of(network.rows.size(), 0);
  for (size_t row = 1; row + 1 < network.rows.size(); ++row) {
    const size_t bytes = row_bytes(network, network.rows[row], T, B);
    size_t place = 0;
    while (place < places.size() && places[place].last_use >= row) ++place;
    if (place == places.size()) places.push_back({});
    places[place] = {std::max(places[place].bytes, bytes), std::max(last_use[row], row)};
    place_of[row] = place;
  }
  std::vector<size_t> begins;
  for (const Place& place : places) begins.push_back(layout.take(place.bytes, kCudaAlignment));
  for (size_t row = 0; row < network.rows.size(); ++row) {
    const bool between = row > 0 && row + 1 < network.rows.size();
    layout.rows.push_back(between ? begins[place_of[row]] : 0);
  }
  return layout;
}

ReserveHeader header_of(const Network& network, int64_t T, int64_t B, size_t bytes,
                        bool has_flags) {
  Digest digest;
  digest.add(FUSEDRNN_VERSION);
  digest.add(cpu::isa_name(cpu::selected_isa()));
  digest.add(static_cast<int64_t>(network.dtype));
  digest.add(static_cast<int64_t>(network.compute));
  digest.add(T);
  digest.add(B);
  for (const Run& run : network.runs) {
    digest.add(run.cell->name);
    const Problem& p = run.problem;
    for (const int64_t n : {int64_t{p.reverse}, int64_t{run.reads}, int64_t{run.writes},
                            run.read_offset, run.write_offset, p.I, p.H, p.P}) {
      digest.add(n);
    }
  }
  return {kMagic, digest.value(), bytes, has_flags ? uint64_t{1} : 0};
}

}  // namespace fusedrnn
