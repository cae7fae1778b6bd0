#include "core/run_network.h"

#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/cuda_devices.h"
#include "core/cuda_library.h"
#include "core/device.h"
#include "core/dtype.h"
#include "core/empty.h"
#include "core/flags.h"
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

template <class Tensor>
Matrix as_matrix(Tensor* const* list, int i) {
  if (list == nullptr || list[i] == nullptr) return {};
  return {data_of(*list[i]), stride_of(*list[i], 0)};
}

// Columns from `offset` on.
Sequence slice(const Sequence& row, int64_t offset, Dtype dtype) {
  if (row.data == nullptr) return {};
  return {static_cast<char*>(row.data) + offset * item_size(dtype), row.t_stride, row.b_stride};
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

// The parts that calls of both kinds share.
template <class Call, class Args>
Call call_of(const Network& network, const Run& run, const Args& args,
             const std::vector<Sequence>& rows) {
  Call call;
  call.problem = run.at(args.x->shape[0], args.x->shape[1]);
  call.x = slice(rows[static_cast<size_t>(run.reads)], run.read_offset, network.dtype);
  if (args.parameters != nullptr) {
    for (int i = 0; i < run.num_parameters(); ++i) {
      call.parameters[i] = as_matrix(args.parameters, run.first_parameter + i);
    }
  }
  return call;
}

// Calls run_one(number, call) for each run.
template <class RunOne>
void for_forward_calls(const Network& network, const fusedrnn_forward_args& args,
                       const std::vector<Sequence>& rows, const RunOne& run_one) {
  for (const Run& run : network.runs) {
    auto call = call_of<ForwardCall>(network, run, args, rows);
    call.y = slice(rows[static_cast<size_t>(run.writes)], run.write_offset, network.dtype);
    for (int s = 0; s < run.num_states(); ++s) {
      call.state_0[s] = as_matrix(args.states, run.first_state + s);
      call.state_n[s] = as_matrix(args.states_n, run.first_state + s);
    }
    run_one(run, call);
  }
}

// The same from the last row to the first, with the gradients of rows; runs side by side in their
// order. clear(row) is called before a row's gradient gathers from runs that read parts of it.
template <class RunOne, class Clear>
void for_backward_calls(const Network& network, const fusedrnn_backward_args& args,
                        const std::vector<Sequence>& rows, const std::vector<Sequence>& gradients,
                        const RunOne& run_one, const Clear& clear) {
  std::vector<bool> begun(rows.size(), false);
  for (size_t row = rows.size() - 1; row > 0; --row) {
    // Nobody has written the gradient of a row that nobody reads: it is zero.
    const bool has_gradient = row + 1 == rows.size() || begun[row];
    for (const Run& run : network.runs) {
      if (static_cast<size_t>(run.writes) != row) continue;
      const auto read = static_cast<size_t>(run.reads);
      auto call = call_of<BackwardCall>(network, run, args, rows);
      if (has_gradient) call.dy = slice(gradients[row], run.write_offset, network.dtype);
      if (!begun[read] && gradients[read].data != nullptr &&
          !network.rows[read].always_read_whole) {
        clear(read);
        begun[read] = true;
      }
      call.dx = slice(gradients[read], run.read_offset, network.dtype);
      call.accumulate_dx = begun[read] && call.dx.data != nullptr;
      begun[read] = true;
      for (int s = 0; s < run.num_states(); ++s) {
        call.dstate_n[s] = as_matrix(args.dstates_n, run.first_state + s);
        call.dstate_0[s] = as_matrix(args.dstates, run.first_state + s);
      }
      for (int i = 0; i < run.num_parameters(); ++i) {
        call.dparameters[i] = as_matrix(args.dparameters, run.first_parameter + i);
      }
      run_one(run, call);
    }
  }
}

void fill_zero(const Sequence& row, int64_t T, int64_t B, int64_t width, Dtype dtype) {
  const int64_t item = item_size(dtype);
  for (int64_t t = 0; t < T; ++t) {
    for (int64_t b = 0; b < B; ++b) {
      std::memset(static_cast<char*>(row.data) + (t * row.t_stride + b * row.b_stride) * item, 0,
                  static_cast<size_t>(width * item));
    }
  }
}

size_t number_of(const Network& network, const Run& run) {
  return static_cast<size_t>(&run - network.runs.data());
}

// --- on the CPU ---

void forward_on_cpu(const Network& network, const fusedrnn_forward_args& args,
                    const fusedrnn_frozen* frozen) {
  const int64_t T = args.x->shape[0], B = args.x->shape[1];
  const bool flagged = args.lengths != nullptr || args.resets != nullptr;
  const bool save = args.reserve != nullptr;
  const ReserveLayout layout =
      save ? ReserveLayout::of_cpu(network, T, B) : ReserveLayout::of_call(network, T, B, flagged);
  const Block block = save || layout.total == 0 ? Block() : Block(layout.total);
  char* const memory = static_cast<char*>(save ? args.reserve : block.data());
  uint8_t* flags[2] = {};
  for (const Run& run : network.runs) {
    const bool reverse = run.problem.reverse;
    if (!flagged || flags[reverse] != nullptr) continue;
    flags[reverse] = reinterpret_cast<uint8_t*>(memory + layout.flags[reverse]);
    write_flags(T, B, reverse, args.lengths, args.resets, flags[reverse]);
  }
  const std::vector<Sequence> rows =
      rows_of(network, as_sequence(args.x), as_sequence(args.y), B, memory, layout);
  for_forward_calls(network, args, rows, [&](const Run& run, ForwardCall& call) {
    const size_t number = number_of(network, run);
    call.flags = flags[run.problem.reverse];
    if (save) call.reserve = memory + layout.runs[number];
    if (is_empty(call.problem)) {
      forward_empty(run, call);
    } else if (frozen != nullptr) {
      cpu::forward(*frozen->packed[number], call);
    } else {
      cpu::forward(call);
    }
  });
  if (!save) return;
  const ReserveHeader header = header_of(network, T, B, layout.total, flagged);
  std::memcpy(args.reserve, &header, sizeof header);
}

void backward_on_cpu(const Network& network, const fusedrnn_backward_args& args) {
  const int64_t T = args.x->shape[0], B = args.x->shape[1];
  const bool flagged = args.lengths != nullptr || args.resets != nullptr;
  const ReserveLayout layout = ReserveLayout::of_cpu(network, T, B);
  auto* const memory = static_cast<char*>(const_cast<void*>(args.reserve));  // only read
  const std::vector<Sequence> rows = rows_of(network, as_sequence(args.x), {}, B, memory, layout);
  const ReserveLayout between = ReserveLayout::of_call(network, T, B, false);
  const Block block = between.total == 0 ? Block() : Block(between.total);
  const std::vector<Sequence> gradients =
      rows_of(network, as_sequence(args.dx), as_sequence(args.dy), B,
              static_cast<char*>(block.data()), between);
  for_backward_calls(
      network, args, rows, gradients,
      [&](const Run& run, BackwardCall& call) {
        if (flagged)
          call.flags = reinterpret_cast<uint8_t*>(memory + layout.flags[run.problem.reverse]);
        call.reserve = memory + layout.runs[number_of(network, run)];
        if (is_empty(call.problem)) {
          backward_empty(run, call);
        } else {
          cpu::backward(call);
        }
      },
      [&](size_t row) { fill_zero(gradients[row], T, B, network.rows[row].width, network.dtype); });
}

// --- on a CUDA device ---

// A mask with nothing left to work out: no offset, a stride on every axis.
class Mask {
 public:
  explicit Mask(const DLTensor* t) {
    if (t == nullptr) return;
    tensor_ = *t;
    tensor_->data = t->data == nullptr ? nullptr : data_of(*t);
    tensor_->byte_offset = 0;
    for (int i = 0; i < t->ndim; ++i) strides_[i] = stride_of(*t, i);
    tensor_->strides = strides_;
  }
  Mask(const Mask&) = delete;
  Mask& operator=(const Mask&) = delete;

  const DLTensor* tensor() const { return tensor_ ? &*tensor_ : nullptr; }

 private:
  std::optional<DLTensor> tensor_;
  int64_t strides_[2] = {};
};

// A call's place, its masks, and memory for rows that it needs no longer than itself.
class CudaCall {
 public:
  explicit CudaCall(const fusedrnn_forward_args& args)
      : plugin_(cuda_plugin()),
        place_{args.x->device.device_id, args.stream, args.allocator},
        lengths_(args.lengths),
        resets_(args.resets),
        masks_{lengths_.tensor(), resets_.tensor()} {}
  // Nobody has checked the masks, and nobody looks at them but for whether they are there.
  explicit CudaCall(const fusedrnn_backward_args& args)
      : plugin_(cuda_plugin()),
        place_{args.x->device.device_id, args.stream, args.allocator},
        lengths_(nullptr),
        resets_(nullptr),
        masks_{args.lengths, args.resets} {}
  ~CudaCall() {
    if (kept_ == nullptr) return;
    plugin_.leave(kept_, &place_);
    plugin_.free_kept(kept_);
  }
  CudaCall(const CudaCall&) = delete;
  CudaCall& operator=(const CudaCall&) = delete;

  char* allocate(size_t bytes) {
    if (bytes == 0) return nullptr;
    void* memory = nullptr;
    check_cuda(plugin_, plugin_.keep(bytes, &place_, &kept_, &memory));
    return static_cast<char*>(memory);
  }
  void run(const ForwardCall& call) const {
    check_cuda(plugin_, plugin_.forward(&call, &masks_, &place_));
  }
  void run(const BackwardCall& call) const {
    check_cuda(plugin_, plugin_.backward(&call, &masks_, &place_));
  }

 private:
  const CudaPlugin& plugin_;
  const CudaPlace place_;
  const Mask lengths_, resets_;
  const CudaMasks masks_;
  CudaKept* kept_ = nullptr;
};

void forward_on_cuda(const Network& network, const fusedrnn_forward_args& args) {
  require_cuda_device("x", args.x->device);
  const int64_t T = args.x->shape[0], B = args.x->shape[1];
  const bool save = args.reserve != nullptr;
  CudaCall cuda(args);
  const ReserveLayout layout =
      save ? ReserveLayout::of_cuda(network, T, B) : ReserveLayout::of_call(network, T, B, false);
  char* const memory = save ? static_cast<char*>(args.reserve) : cuda.allocate(layout.total);
  const std::vector<Sequence> rows =
      rows_of(network, as_sequence(args.x), as_sequence(args.y), B, memory, layout);
  for_forward_calls(network, args, rows, [&](const Run& run, ForwardCall& call) {
    if (save) call.reserve = memory + layout.runs[number_of(network, run)];
    cuda.run(call);
  });
}

// Nothing there sets a row to zero before runs that read parts of it add their gradients.
void refuse_parts_of_rows(const Network& network, bool wants_dx) {
  for (size_t row = wants_dx ? 0 : 1; row < network.rows.size(); ++row) {
    if (network.rows[row].readers == 0 || network.rows[row].always_read_whole) continue;
    throw_value_error(
        "read_offset: expected runs that read whole rows, for gradients on a CUDA device; row " +
        std::to_string(row) + " is read in parts");
  }
}

void backward_on_cuda(const Network& network, const fusedrnn_backward_args& args) {
  require_cuda_device("x", args.x->device);
  refuse_parts_of_rows(network, args.dx != nullptr);
  const int64_t T = args.x->shape[0], B = args.x->shape[1];
  CudaCall cuda(args);
  const ReserveLayout layout = ReserveLayout::of_cuda(network, T, B);
  auto* const memory = static_cast<char*>(const_cast<void*>(args.reserve));  // only read
  const std::vector<Sequence> rows = rows_of(network, as_sequence(args.x), {}, B, memory, layout);
  const ReserveLayout between = ReserveLayout::of_call(network, T, B, false);
  const std::vector<Sequence> gradients =
      rows_of(network, as_sequence(args.dx), as_sequence(args.dy), B, cuda.allocate(between.total),
              between);
  for_backward_calls(
      network, args, rows, gradients,
      [&](const Run& run, BackwardCall& call) {
        call.reserve = memory + layout.runs[number_of(network, run)];
        cuda.run(call);
      },
      [](size_t) {});
}

}  // namespace

void run_forward(const Network& network, const fusedrnn_forward_args& args,
                 const fusedrnn_frozen* frozen) {
  if (is_cuda(args.x->device)) {
    forward_on_cuda(network, args);
  } else {
    forward_on_cpu(network, args, frozen);
  }
}

void run_backward(const Network& network, const fusedrnn_backward_args& args) {
  if (is_cuda(args.x->device)) {
    backward_on_cuda(network, args);
  } else {
    backward_on_cpu(network, args);
  }
}

}  // namespace fusedrnn
