#include "core/run_network.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cells/dropout.h"
#include "core/cuda_library.h"
#include "core/frozen.h"
#include "core/memory.h"
#include "core/reserve.h"
#include "core/tensor.h"
#include "cpu/engine.h"

namespace fusedrnn {
namespace {

Sequence as_sequence(const DLTensor* t) {
  if (t == nullptr) return {};
  return {data_of(*t), stride_of(*t, 0), stride_of(*t, 1)};
}

// `count` sequences of a list from `first` on; without a list none is given.
template <class Tensor>
void to_sequences(Sequence* sequences, Tensor* const* list, int first, int count) {
  for (int i = 0; list != nullptr && i < count; ++i) sequences[i] = as_sequence(list[first + i]);
}

Sequence as_sequence(const Matrix& m) { return {m.data, 0, m.stride}; }

// Columns from `offset` on.
Sequence slice(const Sequence& row, int64_t offset, Dtype dtype) {
  if (row.data == nullptr) return {};
  return {static_cast<char*>(row.data) + offset * item_size(dtype), row.t_stride, row.b_stride};
}

// `n` numbers of each of T * B rows: those of `from`, or zeros where it has none. Memory that is
// its own source is no error.
void copy_rows(const Sequence& to, const Sequence& from, int64_t T, int64_t B, int64_t n,
               Dtype dtype) {
  if (to.data == nullptr) return;
  const int64_t item = item_size(dtype);
  const auto bytes = static_cast<size_t>(n * item);
  const auto row = [&](const Sequence& s, int64_t t, int64_t b) {
    return static_cast<char*>(s.data) + (t * s.t_stride + b * s.b_stride) * item;
  };
  for (int64_t t = 0; t < T; ++t) {
    for (int64_t b = 0; b < B; ++b) {
      if (from.data == nullptr) {
        std::memset(row(to, t, b), 0, bytes);
      } else {
        std::memmove(row(to, t, b), row(from, t, b), bytes);
      }
    }
  }
}

// What a run without steps or without sequences leaves to do.
void pass_states(const Run& run, const Problem& p, const Matrix* from, const Matrix* to) {
  for (int s = 0; s < run.num_states(); ++s) {
    copy_rows(as_sequence(to[s]), as_sequence(from[s]), 1, p.B, run.state_size(s), p.dtype);
  }
}
void clear_gradients(const Run& run, const BackwardCall& call) {
  for (int i = 0; i < run.num_parameters(); ++i) {
    // A vector is one row here.
    const int64_t rows = run.is_matrix(i) ? run.rows(i) : 1;
    const int64_t columns = run.is_matrix(i) ? run.columns(i) : run.rows(i);
    copy_rows(as_sequence(call.dparameters[i]), {}, 1, rows, columns, call.problem.dtype);
  }
  for (int s = 0; s < run.num_states(); ++s) {
    copy_rows(as_sequence(call.dreset_state[s]), {}, 1, 1, run.state_size(s), call.problem.dtype);
    if (call.flow[s] != nullptr) std::fill_n(call.flow[s], call.problem.T, 0.0);
  }
}

// x, y and the rows between them, or their gradients.
std::vector<Sequence> rows_of(const Network& network, const Sequence& first, const Sequence& last,
                              int64_t B, char* memory, const ReserveLayout& layout) {
  std::vector<Sequence> rows(network.rows.size());
  for (size_t i = 1; i + 1 < rows.size(); ++i) {
    rows[i] = {memory + layout.rows[i], B * network.rows[i].width, network.rows[i].width};
  }
  rows.front() = first;
  rows.back() = last;
  return rows;
}

// The masks of a call; backward's, of which only the presence counts, have no padding.
template <class Args>
CudaMasks masks_of(const Args& args) {
  CudaMasks masks{args.lengths, args.mask, args.resets, false};
  if constexpr (requires { args.padding; }) {
    masks.shows_padding = args.padding == FUSEDRNN_PADDING_LAST;
  }
  return masks;
}

// Whether bytes [T,B], in any strides, are not zero.
auto bits_of(const DLTensor& t) {
  return [data = static_cast<const uint8_t*>(data_of(t)), t_stride = stride_of(t, 0),
          b_stride = stride_of(t, 1)](int64_t step, int64_t b) {
    return data[step * t_stride + b * b_stride] != 0;
  };
}

// StepFlags [T,B] of runs in one direction, step by step as they are taken.
void write_flags(int64_t T, int64_t B, bool reverse, const CudaMasks& masks, uint8_t* flags) {
  const uint8_t missing = masks.shows_padding ? kShown : 0;
  std::vector<int64_t> lengths(static_cast<size_t>(B), T);
  for (int64_t b = 0; masks.lengths != nullptr && b < B; ++b) {
    // Clamped although checked: another thread may write the caller's memory.
    lengths[static_cast<size_t>(b)] = std::clamp<int64_t>(read_integer(*masks.lengths, b), 0, T);
  }
  for (int64_t t = 0; t < T; ++t) {
    uint8_t* const row = flags + t * B;
    for (int64_t b = 0; b < B; ++b) {
      row[b] = t < lengths[static_cast<size_t>(b)] ? kValid | kShown : missing;
    }
  }
  if (masks.mask != nullptr) {
    const auto mask = bits_of(*masks.mask);
    for (int64_t t = 0; t < T; ++t) {
      for (int64_t b = 0; b < B; ++b) {
        if (!mask(t, b)) flags[t * B + b] = missing;
      }
    }
  }
  if (masks.resets == nullptr) return;
  const auto resets = bits_of(*masks.resets);
  // A reset stands before its step: the state enters that step, or in reverse leaves it.
  std::vector<uint8_t> crossed(static_cast<size_t>(B), 0);
  for (int64_t i = 0; i < T; ++i) {
    const int64_t t = reverse ? T - 1 - i : i;
    for (int64_t b = 0; b < B; ++b) {
      uint8_t& flag = flags[t * B + b];
      if ((flag & kValid) == 0) continue;
      const bool begins = resets(t, b);
      uint8_t& follows = crossed[static_cast<size_t>(b)];
      if (reverse ? follows != 0 : begins) flag |= kCut;
      follows = begins ? 1 : 0;
    }
  }
}

// --- the engines ---

// The CPU's, and memory that a call needs no longer than itself. It holds runs back until something
// else has to come after them, so that they can be taken side by side.
class CpuEngine {
 public:
  explicit CpuEngine(const Network& network, const fusedrnn_frozen* frozen = nullptr)
      : frozen_(frozen), runs_(network.runs.size()) {}

  static constexpr bool kReadsFlags = true;
  char* allocate(size_t bytes) {
    if (bytes != 0) block_ = Block(bytes);
    return static_cast<char*>(block_.data());
  }
  void run(const Run& run, size_t number, const ForwardCall& call) {
    if (is_empty(call.problem)) return pass_states(run, call.problem, call.state_0, call.state_n);
    const cpu::Packed* const packed = frozen_ == nullptr ? nullptr : frozen_->packed[number].get();
    take(forward_, {run.reads, run.writes, packed, call});
  }
  void run(const Run& run, size_t, const BackwardCall& call) {
    if (!is_empty(call.problem)) return take(backward_, {run.reads, run.writes, nullptr, call});
    pass_states(run, call.problem, call.dstate_n, call.dstate_0);
    clear_gradients(run, call);
  }
  void run(const DropCall& call) const { cpu::drop(call); }
  // All runs so far.
  void finish() {
    cpu::run(forward_);
    forward_.clear();
    cpu::run(backward_);
    backward_.clear();
  }

 private:
  template <class Run>
  void take(SmallVector<Run>& held, const Run& run) const {
    if (runs_ == 1) return cpu::run(std::span<const Run>(&run, 1));
    held.reserve(runs_);
    held.push_back(run);
  }

  const fusedrnn_frozen* const frozen_;
  const size_t runs_;
  Block block_;
  SmallVector<cpu::NetworkRun<ForwardCall>> forward_;
  SmallVector<cpu::NetworkRun<BackwardCall>> backward_;
};

// The same on a CUDA device. Masks are its library's to read.
class CudaEngine {
 public:
  template <class Args>
  explicit CudaEngine(const Args& args)
      : plugin_(cuda_plugin()),
        place_{args.x->device.device_id, args.stream, args.allocator},
        masks_(masks_of(args)) {}
  ~CudaEngine() {
    if (kept_ == nullptr) return;
    plugin_.leave(kept_, &place_);
    plugin_.free_kept(kept_);
  }
  CudaEngine(const CudaEngine&) = delete;
  CudaEngine& operator=(const CudaEngine&) = delete;

  static constexpr bool kReadsFlags = false;
  char* allocate(size_t bytes) {
    if (bytes == 0) return nullptr;
    void* memory = nullptr;
    check_cuda(plugin_, plugin_.keep(bytes, &place_, &kept_, &memory));
    return static_cast<char*>(memory);
  }
  void run(const Run&, size_t, const ForwardCall& call) const {
    check_cuda(plugin_, plugin_.forward(&call, &masks_, &place_));
  }
  void run(const Run&, size_t, const BackwardCall& call) const {
    check_cuda(plugin_, plugin_.backward(&call, &masks_, &place_));
  }
  void run(const DropCall& call) const { check_cuda(plugin_, plugin_.drop(&call, &place_)); }
  void finish() const {}

 private:
  const CudaPlugin& plugin_;
  const CudaPlace place_;
  const CudaMasks masks_;
  CudaKept* kept_ = nullptr;
};

// --- the passes ---

// Of a call, the parts that both kinds have.
template <class Call, class Args>
Call call_of(const Network& network, const Run& run, const Args& args,
             const std::vector<Sequence>& rows) {
  Call call;
  call.problem = run.at(args.x->shape[0], args.x->shape[1]);
  Noise& noise = call.problem.noise;
  noise.training = args.training != 0;
  noise.seed = args.dropout_seed;
  noise.run = network.number_of(run);
  noise.first_step = args.dropout_step;
  call.x = slice(rows[run.reads], run.read_offset, network.dtype);
  to_matrices(call.parameters, args.parameters, run.first_parameter, run.num_parameters());
  return call;
}

// Of a row between runs, or of its gradient: the same elements.
template <class Engine, class Args>
void drop(Engine& engine, const Network& network, const Args& args, size_t row,
          const Sequence& values) {
  if (args.dropout == 0) return;
  engine.finish();
  DropCall call;
  call.dtype = network.dtype;
  call.T = args.x->shape[0];
  call.B = args.x->shape[1];
  call.n = network.rows[row].width;
  call.from = call.to = values;
  call.row = static_cast<int64_t>(row);
  call.first_step = args.dropout_step;
  call.rate = args.dropout;
  call.seed = args.dropout_seed;
  if (call.T != 0 && call.B != 0) engine.run(call);
}

// DropConnect: the recurrent weights of each run, dropped in memory of the call's.
template <class Args>
class DroppedWeights {
 public:
  DroppedWeights(const Network& network, const Args& args) : network_(network), args_(args) {
    for (const Run& run : network.runs) bytes_ += bytes_of(run);
  }

  size_t bytes() const { return bytes_; }
  void use(char* memory) { memory_ = memory; }

  // What the run multiplies in the place of its own.
  template <class Engine>
  void replace(const Engine& engine, const Run& run, Matrix* parameters) {
    if (!drops(run)) return;
    Matrix& weights = parameters[run.recurrent_weights()];
    const Matrix own = std::exchange(weights, {memory_, run.columns(run.recurrent_weights())});
    memory_ += bytes_of(run);
    engine.run(call_of(run, own, weights));
  }
  // The gradients of its own from those of what was multiplied.
  template <class Engine>
  void differentiate(const Engine& engine, const Run& run, const Matrix* dparameters) const {
    if (!drops(run)) return;
    const Matrix& gradient = dparameters[run.recurrent_weights()];
    if (gradient.data != nullptr) engine.run(call_of(run, gradient, gradient));
  }

 private:
  bool drops(const Run& run) const { return args_.training != 0 && run.weight_dropout != 0; }
  size_t bytes_of(const Run& run) const {
    if (!drops(run)) return 0;
    const int64_t numbers = run.parameter_shape(run.recurrent_weights()).count();
    return static_cast<size_t>(numbers * item_size(network_.dtype));
  }
  DropCall call_of(const Run& run, const Matrix& from, const Matrix& to) const {
    DropCall call;
    call.dtype = network_.dtype;
    call.T = 1;
    call.B = run.rows(run.recurrent_weights());
    call.n = run.columns(run.recurrent_weights());
    call.from = as_sequence(from);
    call.to = as_sequence(to);
    call.row = cells::row_of_mask(cells::Mask::weights, network_.number_of(run));
    call.rate = run.weight_dropout;
    call.seed = args_.dropout_seed;
    return call;
  }

  const Network& network_;
  const Args& args_;
  size_t bytes_ = 0;
  char* memory_ = nullptr;
};

template <class Engine>
void forward_by(Engine&& engine, const Network& network, const fusedrnn_forward_args& args) {
  const int64_t T = args.x->shape[0], B = args.x->shape[1];
  const CudaMasks masks = masks_of(args);
  const bool flagged = Engine::kReadsFlags && has_masks(args);
  const bool save = args.reserve != nullptr;
  const ReserveLayout layout = save ? ReserveLayout::of_device(network, args.x->device, T, B)
                                    : ReserveLayout::of_call(network, T, B, flagged);
  DroppedWeights dropped(network, args);
  const size_t bytes = save ? 0 : layout.total;
  char* const own = engine.allocate(bytes + dropped.bytes());
  char* const memory = save ? static_cast<char*>(args.reserve) : own;
  dropped.use(own + bytes);
  const std::vector<Sequence> rows =
      rows_of(network, as_sequence(args.x), as_sequence(args.y), B, memory, layout);
  bool flags_written[2] = {};
  for (size_t number = 0; number < network.runs.size(); ++number) {
    const Run& run = network.runs[number];
    const bool reverse = run.problem.reverse;
    auto call = call_of<ForwardCall>(network, run, args, rows);
    call.y = slice(rows[run.writes], run.write_offset, network.dtype);
    to_matrices(call.state_0, args.states, run.first_state, run.num_states());
    to_matrices(call.state_n, args.states_n, run.first_state, run.num_states());
    to_matrices(call.reset_state, args.reset_states, run.first_state, run.num_states());
    to_sequences(call.state_y, args.state_sequences, run.first_state, run.num_states());
    if (save) call.reserve = memory + layout.runs[number];
    if (flagged) {
      auto* const flags = reinterpret_cast<uint8_t*>(memory + layout.flags[reverse]);
      if (!std::exchange(flags_written[reverse], true)) {
        write_flags(T, B, reverse, masks, flags);
      }
      call.flags = flags;
    }
    dropped.replace(engine, run, call.parameters);
    engine.run(run, number, call);
    // Before the row is read: by runs that come once it is complete.
    const bool complete =
        number + 1 < network.runs.size() && network.runs[number + 1].writes != run.writes;
    if (complete) drop(engine, network, args, run.writes, rows[run.writes]);
  }
  engine.finish();
  if (save && Engine::kReadsFlags) write_header(network, args);
}

// From the last row to the first; runs side by side in their order.
template <class Engine>
void backward_by(Engine&& engine, const Network& network, const fusedrnn_backward_args& args) {
  const int64_t T = args.x->shape[0], B = args.x->shape[1];
  const ReserveLayout layout = ReserveLayout::of_device(network, args.x->device, T, B);
  auto* const memory = static_cast<char*>(const_cast<void*>(args.reserve));  // only read
  const std::vector<Sequence> rows = rows_of(network, as_sequence(args.x), {}, B, memory, layout);
  const ReserveLayout between = ReserveLayout::of_call(network, T, B, false);
  DroppedWeights dropped(network, args);
  char* const own = engine.allocate(between.total + dropped.bytes());
  dropped.use(own + between.total);
  const std::vector<Sequence> gradients =
      rows_of(network, as_sequence(args.dx), as_sequence(args.dy), B, own, between);
  std::vector<bool> begun(rows.size(), false);
  for (size_t row = rows.size() - 1; row > 0; --row) {
    // Nobody has written the gradient of a row that nobody reads: it is zero.
    const bool is_last = row + 1 == rows.size();
    const bool has_gradient = is_last || begun[row];
    if (has_gradient && !is_last) drop(engine, network, args, row, gradients[row]);
    for (size_t number = 0; number < network.runs.size(); ++number) {
      const Run& run = network.runs[number];
      if (run.writes != row) continue;
      const size_t read = run.reads;
      auto call = call_of<BackwardCall>(network, run, args, rows);
      call.reserve = memory + layout.runs[number];
      if (Engine::kReadsFlags && has_masks(args)) {
        call.flags = reinterpret_cast<uint8_t*>(memory + layout.flags[run.problem.reverse]);
      }
      if (has_gradient) call.dy = slice(gradients[row], run.write_offset, network.dtype);
      call.dx = slice(gradients[read], run.read_offset, network.dtype);
      if (!begun[read] && call.dx.data != nullptr && !network.rows[read].always_read_whole) {
        copy_rows(gradients[read], {}, T, B, network.rows[read].width, network.dtype);
        begun[read] = true;
      }
      call.accumulate_dx = begun[read] && call.dx.data != nullptr;
      begun[read] = true;
      to_matrices(call.dstate_n, args.dstates_n, run.first_state, run.num_states());
      to_matrices(call.dstate_0, args.dstates, run.first_state, run.num_states());
      to_sequences(call.dstate_y, args.dstate_sequences, run.first_state, run.num_states());
      to_matrices(call.dreset_state, args.dreset_states, run.first_state, run.num_states());
      to_matrices(call.dparameters, args.dparameters, run.first_parameter, run.num_parameters());
      for (int s = 0; s < run.num_states() && args.flow != nullptr; ++s) {
        call.flow[s] = static_cast<double*>(data_of(*args.flow)) +
                       (run.first_state + s) * stride_of(*args.flow, 0);
      }
      call.clip_dh = args.clip_dh;
      dropped.replace(engine, run, call.parameters);
      engine.run(run, number, call);
    }
  }
  engine.finish();
  for (const Run& run : network.runs) {
    Matrix own_gradients[kMaxParameters];
    to_matrices(own_gradients, args.dparameters, run.first_parameter, run.num_parameters());
    dropped.differentiate(engine, run, own_gradients);
  }
}

// A row on a device is not set to zero before runs that read parts of it add their gradients.
void refuse_parts_of_rows(const Network& network, bool wants_dx) {
  for (size_t row = wants_dx ? 0 : 1; row < network.rows.size(); ++row) {
    if (network.rows[row].always_read_whole) continue;
    throw_value_error(
        "read_offset: expected runs that read whole rows, for gradients on a CUDA device; row " +
        std::to_string(row) + " is read in parts");
  }
}

}  // namespace

void run_forward(const Network& network, const fusedrnn_forward_args& args,
                 const fusedrnn_frozen* frozen) {
  if (!is_cuda(args.x->device)) return forward_by(CpuEngine(network, frozen), network, args);
  require_cuda_device("x", args.x->device);
  forward_by(CudaEngine(args), network, args);
}

void run_backward(const Network& network, const fusedrnn_backward_args& args) {
  if (!is_cuda(args.x->device)) return backward_by(CpuEngine(network), network, args);
  require_cuda_device("x", args.x->device);
  refuse_parts_of_rows(network, args.dx != nullptr);
  backward_by(CudaEngine(args), network, args);
}

void read_gates(const Network& network, const fusedrnn_gates_args& args) {
  const auto number = static_cast<size_t>(args.run);
  const Run& run = network.runs[number];
  const int64_t T = args.gates->shape[0], B = args.gates->shape[1];
  const DLDevice device = args.gates->device;
  GatesCall call;
  call.problem = run.at(T, B);
  if (is_empty(call.problem)) return;
  const ReserveLayout layout = ReserveLayout::of_device(network, device, T, B);
  const char* const memory = static_cast<const char*>(args.reserve);
  call.reserve = memory + layout.runs[number];
  call.count = static_cast<int>(run.cell->gates.size());
  call.gates = as_sequence(args.gates);
  if (!is_cuda(device)) {
    if (args.masked != 0) {
      call.flags = reinterpret_cast<const uint8_t*>(memory + layout.flags[run.problem.reverse]);
    }
    return cpu::gates(call);
  }
  require_cuda_device("gates", device);
  const CudaPlugin& plugin = cuda_plugin();
  const CudaPlace place{device.device_id, args.stream, nullptr};
  check_cuda(plugin, plugin.gates(&call, args.masked != 0, &place));
}

}  // namespace fusedrnn
