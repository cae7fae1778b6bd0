#include "core/reserve.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <initializer_list>
#include <string>
#include <string_view>

#include "core/cuda_library.h"
#include "cpu/engine.h"
#include "cpu/isa/detect.h"

namespace fusedrnn {
namespace {

constexpr uint64_t kMagic = 0x33'56'52'4e'4e'52'44'46;  // "FDRNNRV3"
constexpr size_t kLine = 64, kCudaAlignment = 256;

// Throws OutOfMemory where it cannot be named.
size_t product(std::initializer_list<int64_t> factors) {
  size_t bytes = 1;
  for (const int64_t factor : factors) {
    if (__builtin_mul_overflow(bytes, factor, &bytes)) throw OutOfMemory();
  }
  return bytes;
}

size_t row_bytes(const Network& network, const Row& row, int64_t T, int64_t B) {
  return product({T, B, row.width, item_size(network.dtype)});
}

// Places of pieces of memory, one behind the other.
struct Pieces {
  size_t alignment;
  size_t total = 0;

  size_t take(size_t bytes) {
    const size_t begin = total;
    if (__builtin_add_overflow(total, bytes, &total) || total > SIZE_MAX / 2) throw OutOfMemory();
    total = (total + alignment - 1) / alignment * alignment;
    return begin;
  }
};

struct ReserveHeader {
  uint64_t magic = 0;
  uint64_t digest = 0;  // of the network, the sizes and the instruction set
  uint64_t bytes = 0;
  uint64_t has_flags = 0;
  uint64_t training = 0;  // 1: noise was drawn
  double dropout = 0;
  uint64_t dropout_seed = 0;  // 0 where nothing was drawn, and so is the step
  int64_t dropout_step = 0;
};

ReserveHeader header_of(const Network& network, int64_t T, int64_t B, size_t bytes) {
  uint64_t digest = 0xcbf29ce484222325u;  // FNV-1a, of numbers
  const auto add = [&](int64_t n) {
    digest = (digest ^ static_cast<uint64_t>(n)) * 0x100000001b3u;
  };
  const auto add_text = [&](std::string_view text) {
    for (const char c : text) add(c);
    add(static_cast<int64_t>(text.size()));
  };
  add_text(FUSEDRNN_VERSION);
  add_text(cpu::isa_name(cpu::selected_isa()));
  add(static_cast<int64_t>(network.dtype));
  add(static_cast<int64_t>(network.compute));
  add(int64_t{network.lean});
  add(T);
  add(B);
  for (const Run& run : network.runs) {
    const auto numbers =
        std::bit_cast<std::array<int64_t, sizeof(RunRecord) / sizeof(int64_t)>>(record_of(run));
    for (const int64_t number : numbers) add(number);
  }
  return {.magic = kMagic, .digest = digest, .bytes = bytes};
}

// What a call's arguments say of dropout and noise; without them no seed counts, and 0 has no sign.
template <class Args>
void note_dropout(const Args& args, ReserveHeader& header) {
  header.training = args.training != 0 ? 1 : 0;
  if (args.dropout == 0 && args.training == 0) return;
  header.dropout = args.dropout + 0.0;
  header.dropout_seed = args.dropout_seed;
  header.dropout_step = args.dropout_step;
}

// `sequence`: [T,B,n] of the call.
template <class Args>
void check_place_of_reserve(const Network& network, const Args& args, const DLTensor& sequence) {
  const DLDevice device = sequence.device;
  const size_t wanted = reserve_bytes(network, device, sequence.shape[0], sequence.shape[1]);
  const size_t alignment = is_cuda(device) ? kCudaAlignment : cpu::kReserveAlignment;
  if (args.reserve_bytes != wanted) {
    refuse_value("reserve", std::to_string(wanted) + " bytes, for this network and these sizes",
                 args.reserve_bytes);
  }
  if (reinterpret_cast<uintptr_t>(args.reserve) % alignment != 0) {
    refuse_value("reserve", "memory aligned to " + std::to_string(alignment) + " bytes",
                 "a misaligned address");
  }
}

// `masked`: whether the call says that there were masks.
template <class Args>
void check_left_reserve(const Network& network, const Args& args, const DLTensor& sequence,
                        bool masked) {
  if (args.reserve == nullptr) throw_value_error("reserve: expected an address, got null");
  check_place_of_reserve(network, args, sequence);
  if (is_cuda(sequence.device)) return;  // the host reads nothing there
  ReserveHeader found;
  std::memcpy(&found, args.reserve, sizeof found);
  ReserveHeader wanted =
      header_of(network, sequence.shape[0], sequence.shape[1], args.reserve_bytes);
  if (found.magic != wanted.magic || found.digest != wanted.digest || found.bytes != wanted.bytes) {
    refuse_value("reserve", "what a forward call of this network with these sizes left",
                 "something else");
  }
  if (found.has_flags != (masked ? 1 : 0)) {
    refuse_value(
        "lengths, mask, resets",
        found.has_flags != 0 ? "those of the forward call" : "none, as in the forward call",
        found.has_flags != 0 ? "none" : "some");
  }
  if constexpr (requires { args.dropout; }) {
    note_dropout(args, wanted);
    if (std::bit_cast<uint64_t>(found.dropout) != std::bit_cast<uint64_t>(wanted.dropout)) {
      refuse_value("dropout", number_text(found.dropout) + ", that of the forward call",
                   number_text(wanted.dropout));
    }
    const auto check = [](const char* name, auto left, auto now) {
      if (left == now) return;
      refuse_value(name, std::to_string(left) + ", that of the forward call", now);
    };
    check("training", found.training, wanted.training);
    check("dropout_seed", found.dropout_seed, wanted.dropout_seed);
    check("dropout_step", found.dropout_step, wanted.dropout_step);
  }
}

// --- what each engine leaves of a run ---

size_t bytes_of_plugin(const Run&, const Problem& p) {
  size_t bytes = 0;
  check_cuda(cuda_plugin(), cuda_plugin().reserve_bytes(&p, &bytes));
  return bytes;
}

size_t bytes_of_cpu(const Run&, const Problem& p) { return cpu::reserve_bytes(p); }
size_t bytes_of_any_cpu(const Run&, const Problem& p) { return cpu::largest_reserve_bytes(p); }

// What cuda/general/states.h says, in its order; tests hold it against the library.
size_t bytes_of_cuda(const Run& run, const Problem& p) {
  const int64_t T = p.T, B = p.B;
  const CellTable& cell = *run.cell;
  const int64_t edge = item_size(p.dtype);
  const bool mixed = p.compute == Compute::bfloat16;
  const int64_t row = mixed ? 2 : edge;
  const int64_t real = std::max<int64_t>(edge, sizeof(float));
  Pieces pieces{kCudaAlignment};
  // `steps` times B rows of n numbers, as cuda/rows.h has them.
  const auto add = [&](int64_t steps, int64_t n, int64_t item) {
    pieces.take(product({steps, B, (n + 7) / 8 * 8, item}));
  };
  for (int s = 0; s < run.num_states(); ++s) add(T + 1, run.state_size(s), s == 0 ? edge : real);
  if (mixed || p.noise.state != 0) add(T + 1, run.state_size(0), row);
  if (!p.lean) {
    for (size_t stage = 1; stage < cell.stages.size(); ++stage) {
      if (cell.stages[stage].operand != cells::Operand::passed) continue;
      const int weights = cell.stages[stage - 1].product.weights;
      const char units = weights < 0 ? 'H' : run.parameter(weights).rows.letter;
      add(T, run.extent(units), row);
    }
    add(T, cell.num_gates * p.H, real);
    add(T, std::max(cell.num_saved - cell.num_gates, 0) * p.H, real);
    if (cell.num_norms > 0) add(T, 2 * cell.num_norms, real);
  }
  pieces.take(static_cast<size_t>(T * B));       // flags
  for (const int64_t numbers : {B, B, T + 1}) {  // order
    pieces.take(static_cast<size_t>(numbers) * sizeof(int64_t));
  }
  return pieces.total;
}

// Of an engine that says how many bytes a run of a problem with steps leaves.
ReserveLayout layout_of(const Network& network, bool on_cuda,
                        size_t (*bytes)(const Run& run, const Problem& problem), int64_t T,
                        int64_t B) {
  ReserveLayout layout;
  Pieces pieces{on_cuda ? kCudaAlignment : kLine};
  layout.rows.reserve(network.rows.size());
  layout.runs.reserve(network.runs.size());
  if (!on_cuda) {
    pieces.take(sizeof(ReserveHeader));
    for (const bool reverse : {false, true}) {
      const bool used = std::ranges::any_of(
          network.runs, [&](const Run& run) { return run.problem.reverse == reverse; });
      layout.flags[reverse] = pieces.take(used ? static_cast<size_t>(T * B) : 0);
    }
  }
  for (const Row& row : network.rows) {
    const bool between = &row != &network.rows.front() && &row != &network.rows.back();
    layout.rows.push_back(pieces.take(between ? row_bytes(network, row, T, B) : 0));
  }
  for (const Run& run : network.runs) {
    const Problem p = run.at(T, B);
    layout.runs.push_back(pieces.take(is_empty(p) ? 0 : bytes(run, p)));
  }
  if (pieces.total == 0) pieces.take(1);  // without an address it is inference
  layout.total = pieces.total;
  return layout;
}

}  // namespace

ReserveLayout ReserveLayout::of_device(const Network& network, DLDevice device, int64_t T,
                                       int64_t B) {
  return layout_of(network, is_cuda(device), is_cuda(device) ? bytes_of_plugin : bytes_of_cpu, T,
                   B);
}

ReserveLayout ReserveLayout::of_call(const Network& network, int64_t T, int64_t B, bool flags) {
  ReserveLayout layout;
  Pieces pieces{kCudaAlignment};
  if (flags) {
    for (size_t& direction : layout.flags) direction = pieces.take(static_cast<size_t>(T * B));
  }
  layout.rows.resize(network.rows.size(), 0);
  layout.total = pieces.total;
  if (network.rows.size() == 2) return layout;  // nothing lies between x and y
  // A row is needed from the runs that write it to those that read it, which write later rows: in
  // this order, or backward in the other. The same places serve both.
  std::vector<size_t> last_use(network.rows.size(), 0);
  for (const Run& run : network.runs) {
    last_use[run.reads] = run.writes;
  }
  struct Place {
    size_t bytes = 0, last_use = 0, begin = 0;
  };
  std::vector<Place> places;
  for (size_t row = 1; row + 1 < network.rows.size(); ++row) {
    size_t place = 0;
    while (place < places.size() && places[place].last_use >= row) ++place;
    if (place == places.size()) places.emplace_back();
    const size_t bytes = row_bytes(network, network.rows[row], T, B);
    places[place].bytes = std::max(places[place].bytes, bytes);
    places[place].last_use = std::max(last_use[row], row);
    layout.rows[row] = place;
  }
  for (Place& place : places) place.begin = pieces.take(place.bytes);
  for (size_t row = 1; row + 1 < network.rows.size(); ++row) {
    layout.rows[row] = places[layout.rows[row]].begin;
  }
  layout.total = pieces.total;
  return layout;
}

void write_header(const Network& network, const fusedrnn_forward_args& args) {
  ReserveHeader header = header_of(network, args.x->shape[0], args.x->shape[1], args.reserve_bytes);
  header.has_flags = has_masks(args) ? 1 : 0;
  note_dropout(args, header);
  std::memcpy(args.reserve, &header, sizeof header);
}

size_t reserve_bytes(const Network& network, DLDevice device, int64_t T, int64_t B) {
  return ReserveLayout::of_device(network, device, T, B).total;
}

size_t cuda_reserve_bytes(const Network& network, int64_t T, int64_t B) {
  return layout_of(network, true, bytes_of_cuda, T, B).total;
}

size_t reserve_bytes_anywhere(const Network& network, int64_t T, int64_t B) {
  const size_t cpu = layout_of(network, false, bytes_of_any_cpu, T, B).total;
  return std::max(cpu, cuda_reserve_bytes(network, T, B));
}

void check_reserve(const Network& network, const fusedrnn_forward_args& args) {
  if (args.reserve != nullptr) return check_place_of_reserve(network, args, *args.x);
  if (args.reserve_bytes == 0) return;
  refuse_value("reserve", "an address of " + std::to_string(args.reserve_bytes) + " bytes", "null");
}

void check_reserve(const Network& network, const fusedrnn_backward_args& args) {
  check_left_reserve(network, args, *args.x, has_masks(args));
}

void check_reserve(const Network& network, const fusedrnn_gates_args& args) {
  check_left_reserve(network, args, *args.gates, args.masked != 0);
}

}  // namespace fusedrnn
