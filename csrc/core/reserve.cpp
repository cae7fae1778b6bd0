#include "core/reserve.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>

#include "core/cuda_library.h"
#include "core/device.h"
#include "core/dtype.h"
#include "core/empty.h"
#include "core/error.h"
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
  if (overflow) throw OutOfMemory();
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

void check_bytes_of(const void* reserve, size_t given, size_t wanted, size_t alignment) {
  if (given != wanted) {
    throw_value_error(expected("reserve",
                               std::to_string(wanted) + " bytes, for this network and these sizes",
                               std::to_string(given)));
  }
  if (reinterpret_cast<uintptr_t>(reserve) % alignment != 0) {
    throw_value_error(expected("reserve",
                               "memory aligned to " + std::to_string(alignment) + " bytes",
                               "a misaligned address"));
  }
}

template <class Args>
void check_size_of_reserve(const Network& network, const Args& args) {
  const DLDevice device = args.x->device;
  check_bytes_of(args.reserve, args.reserve_bytes,
                 reserve_bytes(network, device, args.x->shape[0], args.x->shape[1]),
                 is_cuda(device) ? kCudaAlignment : cpu::kReserveAlignment);
}

}  // namespace

size_t ReserveLayout::take(size_t bytes, size_t alignment) {
  const size_t begin = total;
  if (__builtin_add_overflow(total, bytes, &total) || total > SIZE_MAX / 2) throw OutOfMemory();
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
  if (layout.total == 0) layout.take(1, kCudaAlignment);  // without an address it is inference
  return layout;
}

ReserveLayout ReserveLayout::of_call(const Network& network, int64_t T, int64_t B, bool flags) {
  ReserveLayout layout;
  if (flags) {
    for (size_t& direction : layout.flags)
      direction = layout.take(static_cast<size_t>(T * B), kLine);
  }
  layout.rows.resize(network.rows.size(), 0);
  if (network.rows.size() == 2) return layout;  // nothing lies between x and y
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
  for (size_t row = 1; row + 1 < network.rows.size(); ++row) {
    layout.rows[row] = begins[place_of[row]];
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

size_t reserve_bytes(const Network& network, DLDevice device, int64_t T, int64_t B) {
  return (is_cuda(device) ? ReserveLayout::of_cuda(network, T, B)
                          : ReserveLayout::of_cpu(network, T, B))
      .total;
}

void check_reserve(const Network& network, const fusedrnn_forward_args& args) {
  if (args.reserve != nullptr) {
    check_size_of_reserve(network, args);
  } else if (args.reserve_bytes != 0) {
    throw_value_error(expected(
        "reserve", "an address of " + std::to_string(args.reserve_bytes) + " bytes", "null"));
  }
}

void check_reserve(const Network& network, const fusedrnn_backward_args& args) {
  if (args.reserve == nullptr) throw_value_error("reserve: expected an address, got null");
  check_size_of_reserve(network, args);
  if (is_cuda(args.x->device)) return;  // the host reads nothing there
  ReserveHeader found;
  std::memcpy(&found, args.reserve, sizeof found);
  const ReserveHeader wanted =
      header_of(network, args.x->shape[0], args.x->shape[1], args.reserve_bytes, false);
  if (found.magic != wanted.magic || found.digest != wanted.digest || found.bytes != wanted.bytes) {
    throw_value_error(expected(
        "reserve", "what a forward call of this network with these sizes left", "something else"));
  }
  const bool flagged = args.lengths != nullptr || args.resets != nullptr;
  if (found.has_flags != (flagged ? 1 : 0)) {
    throw_value_error(expected(
        "lengths, resets",
        found.has_flags != 0 ? "those of the forward call" : "none, as in the forward call",
        found.has_flags != 0 ? "none" : "some"));
  }
}

}  // namespace fusedrnn
