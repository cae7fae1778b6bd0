#include "core/validate.h"

#include <bit>
#include <initializer_list>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/memory.h"
#include "core/reserve.h"
#include "core/tensor.h"

namespace fusedrnn {
namespace {

template <class List>
auto* at(List list, int i) {
  return list == nullptr ? nullptr : list[i];
}

void check_dtype(const Name& name, const DLTensor& t, const Network& network, const char* whose) {
  const Dtype dtype = floating_dtype(name, t.dtype);
  if (dtype == network.dtype) return;
  if (is_dual(dtype) && !is_dual(network.dtype)) {  // nothing else takes complex numbers
    throw_wrong_dtype(name, ElementKind::floating, dtype_name(t.dtype));
  }
  const std::string wanted = std::string("dtype ") + dtype_name(network.dtype);
  refuse_type(name, wanted + " (the dtype of " + whose + ")", dtype_name(t.dtype));
}

// The floating tensors of a call: of one type, on one device, and for its end the memory that they
// cover.
class Tensors {
 public:
  Tensors(const Network& network, DLDevice device, const char* whose, Layout layout)
      : network_(network), device_(device), whose_(whose), layout_(layout) {
    if (layout == Layout::any) return;
    const auto most = static_cast<size_t>(network.num_parameters + 3 * network.num_states) + 4;
    inputs.reserve(most);
    outputs.reserve(most);
  }

  // Null: not given. What is not const is written. `in_place`: see Footprint.
  template <class Tensor>
  void add(const Name& name, Tensor* t, const Shape& shape, int in_place = -1) {
    if (t == nullptr) return;
    if (!is_plain(*t, shape)) check(name, *t, shape);
    if (layout_ == Layout::any) return;
    auto& list = std::is_const_v<Tensor> ? inputs : outputs;
    list.emplace_back(name, *t).in_place = in_place;
  }

  // Of all runs; those that are read are there unless they are optional.
  template <class List>
  void add_parameters(List parameters, const char* prefix) {
    network_.for_parameters([&](const Run& run, int i, int number) {
      auto* const t = at(parameters, number);
      const auto& [base, rows, columns, optional] = run.parameter(i);
      const Name name(prefix, base, "", network_.named(run));
      if (!optional && std::is_const_v<std::remove_pointer_t<decltype(t)>>) required(name, t);
      add(name, t, run.parameter_shape(i));
    });
  }

  // Of all runs, each of `axes` and its numbers: "h0", "dc_n" of a step's boundary, or without a
  // suffix "dc" of every step, "reset_h".
  template <class List>
  void add_states(List states, std::initializer_list<int64_t> axes, const char* prefix,
                  const char* suffix) {
    if (states == nullptr) return;
    network_.for_states([&](const Run& run, int s, int number) {
      Shape shape{};
      for (const int64_t axis : axes) shape.add(axis);
      shape.add(run.state_size(s));
      add({prefix, run.state(s).name, suffix, network_.named(run)}, states[number], shape,
          *suffix == 0 ? -1 : number);
    });
  }

  void add_mask(const char* name, const DLTensor* t, ElementKind kind, const Shape& shape) {
    if (t == nullptr) return;
    check_header(name, *t);
    // They may stay in host memory beside arrays on a device.
    if (!is_host(t->device)) check_device(name, t->device, device_, whose_);
    check_kind(name, *t, kind);
    check_shape(name, *t, shape);
    check_data(name, *t);
    if (layout_ == Layout::any) return;
    check_strides(name, *t);
    inputs.emplace_back(name, *t);
  }

  // float64, whatever the network's.
  void add_norms(const char* name, const DLTensor* t, const Shape& shape) {
    if (t == nullptr) return;
    check_tensor(name, *t, "float64", &shape);
    check_device(name, t->device, device_, whose_);
    check_dense(name, *t);
    outputs.emplace_back(name, *t);
  }

  SmallVector<Footprint> inputs, outputs;

 private:
  // What nearly every tensor is: as expected, dense throughout, aligned. A fraction of the cost of
  // the checks, which find the words for what is wrong.
  bool is_plain(const DLTensor& t, const Shape& shape) const {
    const auto [code, bits, lanes] = dtype_info(network_.dtype).dlpack;
    if (t.ndim != shape.rank() || t.shape == nullptr || t.data == nullptr) return false;
    if (t.dtype.code != code || t.dtype.bits != bits || t.dtype.lanes != lanes) return false;
    if (!same_place(t.device, device_)) return false;
    int64_t size = bits / 8;
    if ((reinterpret_cast<uintptr_t>(t.data) + t.byte_offset) % static_cast<uint64_t>(size) != 0)
      return false;
    int64_t stride = 1;
    for (int axis = t.ndim - 1; axis >= 0; --axis) {
      const int64_t extent = shape.begin()[axis];
      if (t.shape[axis] != extent || extent < 1) return false;
      if (t.strides != nullptr && extent > 1 && t.strides[axis] != stride) return false;
      if (__builtin_mul_overflow(stride, extent, &stride) || stride > kMaxBytes / 8) return false;
    }
    return true;
  }

  void check(const Name& name, const DLTensor& t, const Shape& shape) const {
    check_header(name, t);
    check_device(name, t.device, device_, whose_);
    check_dtype(name, t, network_, whose_);
    check_shape(name, t, shape);
    check_data(name, t);
    if (layout_ == Layout::any) return;
    check_strides(name, t);
    check_dense(name, t);
  }

  const Network& network_;
  const DLDevice device_;
  const char* whose_;
  const Layout layout_;
};

// --- the arguments of a call ---

// A stream or an allocator that nobody would use.
template <class Args>
void check_place(const Args& args, DLDevice device) {
  if (is_cuda(device)) return;
  if (args.stream != nullptr) refuse_value("stream", "null with arrays on the CPU", "a stream");
  if constexpr (requires { args.allocator; }) {
    if (args.allocator == nullptr) return;
    refuse_value("allocator", "null with arrays on the CPU", "an allocator");
  }
}

// What x alone says.
const DLTensor& check_x(const Network& network, const DLTensor* given) {
  const DLTensor& x = required("x", given);
  check_header("x", x);
  check_usable_device("x", x.device);
  check_dtype("x", x, network, "the network");
  check_rank("x", x, 3, "[T, B, I]");
  const int64_t T = x.shape[0], B = x.shape[1];
  check_shape("x", x, {T, B, network.input_size()});
  if (!steps_fit(network, T, B)) {
    throw_value_error("x: T = " + std::to_string(T) + ", B = " + std::to_string(B) +
                      ", I = " + std::to_string(x.shape[2]) +
                      ", H = " + std::to_string(network.runs.front().problem.H) + " are too large");
  }
  return x;
}

// Of what a call draws.
template <class Args>
void check_dropout(const Args& args, bool frozen) {
  const double rate = args.dropout;
  if (frozen ? rate != 0 : !(rate >= 0 && rate < 1)) {
    refuse_value("dropout", frozen ? "0 (the weights are frozen)" : "at least 0 and below 1",
                 number_text(rate));
  }
  if (args.dropout_step < 0) refuse_value("dropout_step", "at least 0", args.dropout_step);
  if (frozen && args.training != 0) {
    refuse_value("training", "0 (the weights are frozen)", args.training);
  }
}

// What calls of both kinds are given.
template <class Args>
Tensors call_inputs(const char* type, const Network& network, const Args& args, Layout layout,
                    bool frozen = false) {
  check_size(type, args);
  const DLTensor& x = check_x(network, args.x);
  if (frozen) check_device("x", x.device, {kDLCPU, 0}, "the frozen weights");
  check_place(args, x.device);
  check_compute(network, x.device, frozen);
  check_dropout(args, frozen);
  Tensors tensors(network, x.device, "x", layout);
  tensors.add("x", &x, {x.shape[0], x.shape[1], network.input_size()});
  if (!frozen) tensors.add_parameters(args.parameters, "");
  return tensors;
}

void refuse_with_frozen(const char* name, bool given) {
  if (given) refuse_value(name, "null (the weights are frozen)", "an address");
}

// On a device they are limited instead.
void check_lengths(const DLTensor& t, int64_t T, int64_t B) {
  if (!is_host(t.device)) return;
  for (int64_t b = 0; b < B; ++b) {
    const int64_t length = read_integer(t, b);
    if (length >= 0 && length <= T) continue;
    refuse_value("lengths", "values from 0 to T = " + std::to_string(T),
                 integer_text(t, b) + " at index " + std::to_string(b));
  }
}

// --- the sizes of a call that names none ---

// What one axis of an array says of a letter's size; 0: it is no multiple of its blocks.
struct Axis {
  int array;
  char letter;
  int64_t size;
};

// The likeliest size of a letter: of those that are said, the one that the fewest arrays speak
// against, or else the fewest axes, or else the last; 1 where none is said. check_shape meets the
// others and blames them. `wrong`: a bit for each array that speaks against a size.
int64_t likeliest(char letter, const std::vector<Axis>& axes, uint32_t& wrong) {
  int64_t best = 1;
  uint32_t wrong_with_best = wrong;
  std::pair<int, int> fewest{std::numeric_limits<int>::max(), 0};
  for (const Axis& candidate : axes) {
    if (candidate.letter != letter || candidate.size == 0) continue;
    uint32_t arrays = wrong;
    int count = 0;
    for (const Axis& axis : axes) {
      if (axis.letter != letter || axis.size == candidate.size) continue;
      arrays |= uint32_t{1} << axis.array;
      ++count;
    }
    const std::pair<int, int> against{std::popcount(arrays), count};
    if (against > fewest) continue;
    best = candidate.size;
    wrong_with_best = arrays;
    fewest = against;
  }
  wrong = wrong_with_best;
  return best;
}

std::string axis_text(cells::Extent e) {
  const std::string letter(1, e.letter);
  return e.times == 1 ? letter : "G*" + letter;
}

}  // namespace

fusedrnn_run infer_run(const CellTable& cell, const DLTensor* x, const DLTensor* const* parameters,
                       bool dual, int64_t heads) {
  check_header("x", required("x", x));
  check_usable_device("x", x->device);
  if (is_dual(floating_dtype("x", x->dtype)) != dual) {
    throw_wrong_dtype("x", ElementKind::floating, dtype_name(x->dtype));
  }
  std::vector<Axis> axes;
  axes.reserve(2 * kMaxParameters + 1);
  const auto add = [&](int array, cells::Extent e, int64_t n) {
    axes.push_back({array, e.letter, n % e.times == 0 ? n / e.times : 0});
  };
  const int w_hh = number_of_w_hh(cell);
  if (x->ndim == 3) add(kMaxParameters, {'I'}, x->shape[2]);
  for (int i = 0; i < static_cast<int>(cell.parameters.size()); ++i) {
    const auto& [name, rows, columns, optional] = cell.parameters[static_cast<size_t>(i)];
    const DLTensor* t = at(parameters, i);
    if (!optional) required(name, t);
    if (t == nullptr) continue;
    check_header(name, *t);
    if (columns.letter != 0) {
      const bool of_heads = i == w_hh && heads > 1;
      const auto wanted = [&] {
        return "[" + axis_text(rows) + ", " + axis_text(columns) + (of_heads ? "/heads]" : "]");
      };
      if (t->ndim != 2) check_rank(name, *t, 2, wanted().c_str());
      int64_t n = t->shape[1];
      if (of_heads && __builtin_mul_overflow(n, heads, &n)) n = 0;
      add(i, columns, n);
    }
    if (t->ndim > 0) add(i, rows, t->shape[0]);
  }
  fusedrnn_run run{};
  run.cell = cell.name;
  run.writes = 1;
  run.heads = heads;
  uint32_t wrong = 0;
  run.hidden_size = likeliest('H', axes, wrong);
  check_heads("heads", cell, run.hidden_size, heads);
  if (cell.projects) run.projection_size = likeliest('P', axes, wrong);
  run.input_size = likeliest('I', axes, wrong);
  return run;
}

void check_parameters_to_freeze(const Network& network, const DLTensor* const* parameters,
                                Layout layout) {
  if (network.compute == Compute::tfloat32) check_compute(network, {kDLCPU, 0}, true);
  network.for_parameters([&](const Run& run, int i, int number) {
    const DLTensor* t = at(parameters, number);
    if (t == nullptr) return;
    const Name name(run.parameter(i).name, network.named(run));
    check_header(name, *t);
    if (is_host(t->device)) return;
    // A GPU reads weights as they lie.
    refuse_type(name,
                "weights to freeze on the CPU (on a CUDA device pass them as they are to "
                "every call)",
                "an array on " + device_name(t->device));
  });
  Tensors(network, {kDLCPU, 0}, "the network", layout).add_parameters(parameters, "");
}

void check_forward(const Network& network, const fusedrnn_forward_args& args, Layout layout,
                   bool frozen) {
  Tensors tensors = call_inputs("fusedrnn_forward_args", network, args, layout, frozen);
  if (frozen) {
    refuse_with_frozen("network", args.network != nullptr);
    refuse_with_frozen("parameters", args.parameters != nullptr);
    refuse_with_frozen("reserve", args.reserve != nullptr);
    if (args.reserve_bytes != 0) {
      refuse_value("reserve_bytes", "0 (the weights are frozen)", args.reserve_bytes);
    }
  }
  const int64_t T = args.x->shape[0], B = args.x->shape[1];
  tensors.add_states(args.states, {B}, "", "0");
  tensors.add_mask("lengths", args.lengths, ElementKind::integer, {B});
  if (args.lengths != nullptr && layout == Layout::dense) check_lengths(*args.lengths, T, B);
  tensors.add_mask("mask", args.mask, ElementKind::boolean, {T, B});
  tensors.add_mask("resets", args.resets, ElementKind::boolean, {T, B});
  tensors.add_states(args.reset_states, {}, "reset_", "");
  if (args.padding != FUSEDRNN_PADDING_ZERO && args.padding != FUSEDRNN_PADDING_LAST) {
    refuse_value("padding", "a fusedrnn_padding", args.padding);
  }
  if (layout == Layout::any) return;
  required("y", args.y);
  tensors.add("y", args.y, {T, B, network.output_size()});
  tensors.add_states(args.states_n, {B}, "", "_n");
  tensors.add_states(args.state_sequences, {T, B}, "", "");
  if (!frozen) check_reserve(network, args);
  if (args.reserve != nullptr)
    tensors.outputs.emplace_back("reserve", args.reserve, args.reserve_bytes);
  check_apart(tensors.outputs, tensors.inputs);
}

void check_backward(const Network& network, const fusedrnn_backward_args& args, Layout layout) {
  Tensors tensors = call_inputs("fusedrnn_backward_args", network, args, layout);
  const int64_t T = args.x->shape[0], B = args.x->shape[1];
  tensors.add("dy", args.dy, {T, B, network.output_size()});
  tensors.add_states(args.dstates_n, {B}, "d", "_n");
  tensors.add_states(args.dstate_sequences, {T, B}, "d", "");
  // Far above the least number of float32: a limit that became zero would be none.
  if (args.clip_dh != 0 &&
      !(args.clip_dh >= 1e-30 && args.clip_dh <= std::numeric_limits<double>::max())) {
    refuse_value("clip_dh", "0, for none, or a finite number of at least 1e-30",
                 number_text(args.clip_dh));
  }
  if (args.reserved != 0) refuse_value("reserved", "0", args.reserved);
  // There they say which rows the reserve has.
  if (is_cuda(args.x->device) && args.lengths != nullptr && is_host(args.lengths->device)) {
    tensors.add_mask("lengths", args.lengths, ElementKind::integer, {B});
    if (layout == Layout::dense) check_lengths(*args.lengths, T, B);
  }
  if (layout == Layout::any) return;
  tensors.add("dx", args.dx, {T, B, network.input_size()});
  tensors.add_parameters(args.dparameters, "d");
  tensors.add_states(args.dstates, {B}, "d", "0");
  tensors.add_states(args.dreset_states, {}, "dreset_", "");
  tensors.add_norms("flow", args.flow, {network.num_states, T});
  check_reserve(network, args);
  tensors.inputs.emplace_back("reserve", args.reserve, args.reserve_bytes);
  check_apart(tensors.outputs, tensors.inputs);
}

void check_gates(const Network& network, const fusedrnn_gates_args& args) {
  check_size("fusedrnn_gates_args", args);
  const auto runs = static_cast<int64_t>(network.runs.size());
  if (args.run < 0 || args.run >= runs) {
    refuse_value("run", "0 to " + std::to_string(runs - 1), args.run);
  }
  const Run& run = network.runs[static_cast<size_t>(args.run)];
  if (run.cell->gates.empty()) refuse_value("run", "one of a cell with gates", run.cell->name);
  if (network.lean) {
    refuse_value("memory", "FUSEDRNN_MEMORY_DEFAULT, which keeps the gates",
                 "FUSEDRNN_MEMORY_LEAN");
  }
  const DLTensor& gates = required("gates", args.gates);
  check_header("gates", gates);
  check_usable_device("gates", gates.device);
  check_rank("gates", gates, 3, "[T, B, G*H]");
  const int64_t T = gates.shape[0], B = gates.shape[1];
  if (!steps_fit(network, T, B)) {
    throw_value_error("gates: shape " + shape_text(gates) + " is too large");
  }
  check_place(args, gates.device);
  check_compute(network, gates.device, false);
  Tensors tensors(network, gates.device, "the network", Layout::dense);
  tensors.add("gates", args.gates,
              {T, B, static_cast<int64_t>(run.cell->gates.size()) * run.problem.H});
  check_reserve(network, args);
  tensors.inputs.emplace_back("reserve", args.reserve, args.reserve_bytes);
  check_apart(tensors.outputs, tensors.inputs);
}

void check_compute(const Network& network, DLDevice device, bool frozen) {
  if (network.compute == Compute::int8 && !frozen) {
    refuse_value("compute", "what is there without frozen weights", "FUSEDRNN_COMPUTE_INT8");
  }
  if (network.compute == Compute::tfloat32 && !is_cuda(device)) {
    refuse_value("compute", "what the CPU has (FUSEDRNN_COMPUTE_SAME or _BFLOAT16)",
                 "FUSEDRNN_COMPUTE_TFLOAT32");
  }
}

}  // namespace fusedrnn
