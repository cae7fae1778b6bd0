#include "core/validate.h"

#include <bit>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "core/device.h"
#include "core/dtype.h"
#include "core/footprint.h"
#include "core/reserve.h"
#include "core/tensor.h"

namespace fusedrnn {
namespace {

template <class List>
auto* at(List list, int i) {
  return list == nullptr ? nullptr : list[i];
}

Name parameter_name(const Network& network, const Run& run, int i, const char* prefix = "") {
  return {prefix, run.cell->parameters[static_cast<size_t>(i)].name, "", network.named(run)};
}

// "h0", "dc_n": `time` is "0" before the first step and "_n" after the last.
Name state_name(const Network& network, const Run& run, int s, const char* prefix,
                const char* time) {
  return {prefix, run.cell->states[static_cast<size_t>(s)].name, time, network.named(run)};
}

// The floating tensors of a call: of one type, on one device, and for its end the memory that they
// cover.
class Tensors {
 public:
  Tensors(const Network& network, DLDevice device, const char* whose, Layout layout)
      : network_(network), device_(device), whose_(whose), layout_(layout) {
    if (layout == Layout::any) return;
    const auto most = static_cast<size_t>(network.num_parameters + network.num_states) + 4;
    inputs.reserve(most);
    outputs.reserve(most);
  }

  void check(const Name& name, const DLTensor& t, const Shape& shape) const {
    if (is_plain(t, shape)) return;
    check_header(name, t);
    check_device(name, t.device, device_, whose_);
    const Dtype dtype = network_.dtype;
    if (floating_dtype(name, t) != dtype) {
      const std::string wanted = std::string("dtype ") + dtype_name(dtype) + " (the dtype of ";
      throw_type_error(expected(name, wanted + whose_ + ")", dtype_name(t.dtype)));
    }
    check_shape(name, t, shape);
    check_data(name, t);
    if (layout_ == Layout::any) return;
    check_strides(name, t);
    check_dense(name, t);
  }

  // Null: not given. `in_place`: see Footprint.
  void read(const Name& name, const DLTensor* t, const Shape& shape, int in_place = -1) {
    if (t == nullptr) return;
    check(name, *t, shape);
    if (layout_ == Layout::any) return;
    inputs.emplace_back(name, *t);
    inputs.back().in_place = in_place;
  }
  void write(const Name& name, const DLTensor* t, const Shape& shape, int in_place = -1) {
    if (t == nullptr) return;
    check(name, *t, shape);
    outputs.emplace_back(name, *t);
    outputs.back().in_place = in_place;
  }

  Layout layout() const { return layout_; }
  DLDevice device() const { return device_; }

  std::vector<Footprint> inputs, outputs;

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

  const Network& network_;
  const DLDevice device_;
  const char* whose_;
  const Layout layout_;
};

// --- lengths and resets ---

// They may stay in host memory beside arrays on a device.
void check_mask_header(const char* name, const DLTensor& t, const Tensors& tensors) {
  check_header(name, t);
  if (!is_host(t.device)) check_device(name, t.device, tensors.device(), "x");
}

void check_lengths(const DLTensor& t, int64_t T, int64_t B, const Tensors& tensors) {
  check_mask_header("lengths", t, tensors);
  if (!has_type(t, kDLInt, {8, 16, 32, 64}) && !has_type(t, kDLUInt, {8, 16, 32, 64})) {
    throw_wrong_dtype("lengths", ElementKind::integer, dtype_name(t.dtype));
  }
  check_shape("lengths", t, {B});
  check_data("lengths", t);
  if (tensors.layout() == Layout::any) return;
  check_strides("lengths", t);
  if (is_cuda(t.device)) return;
  for (int64_t b = 0; b < B; ++b) {
    const int64_t length = read_integer(t, b);
    if (length >= 0 && length <= T) continue;
    throw_value_error(expected("lengths", "values from 0 to T = " + std::to_string(T),
                               integer_text(t, b) + " at index " + std::to_string(b)));
  }
}

void check_resets(const DLTensor& t, int64_t T, int64_t B, const Tensors& tensors) {
  check_mask_header("resets", t, tensors);
  if (!has_type(t, kDLBool, {8})) {
    throw_wrong_dtype("resets", ElementKind::boolean, dtype_name(t.dtype));
  }
  check_shape("resets", t, {T, B});
  check_data("resets", t);
  if (tensors.layout() == Layout::dense) check_strides("resets", t);
}

void read_masks(const fusedrnn_forward_args& args, int64_t T, int64_t B, Tensors& tensors) {
  if (args.lengths != nullptr) check_lengths(*args.lengths, T, B, tensors);
  if (args.resets != nullptr) check_resets(*args.resets, T, B, tensors);
  if (tensors.layout() == Layout::any) return;
  if (args.lengths != nullptr)
    tensors.inputs.push_back(Footprint::of_elements("lengths", *args.lengths));
  if (args.resets != nullptr)
    tensors.inputs.push_back(Footprint::of_elements("resets", *args.resets));
}

// --- the arguments of a call ---

template <class Args>
void check_size(const char* name, const Args& args) {
  if (args.size == sizeof args) return;
  throw_value_error(expected(name, "size = " + std::to_string(sizeof args) + " (its sizeof)",
                             std::to_string(args.size)));
}

// A stream or an allocator that nobody would use.
template <class Args>
void check_place(const Args& args, DLDevice device) {
  if (is_cuda(device)) return;
  if (args.stream != nullptr) {
    throw_value_error(expected("stream", "null with arrays on the CPU", "a stream"));
  }
  if (args.allocator != nullptr) {
    throw_value_error(expected("allocator", "null with arrays on the CPU", "an allocator"));
  }
}

// What x alone says.
const DLTensor& check_x(const Network& network, const DLTensor* given) {
  const DLTensor& x = required("x", given);
  check_header("x", x);
  check_usable_device("x", x.device);
  if (floating_dtype("x", x) != network.dtype) {
    throw_type_error(expected(
        "x", std::string("dtype ") + dtype_name(network.dtype) + " (the dtype of the network)",
        dtype_name(x.dtype)));
  }
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

void read_parameters(const Network& network, const DLTensor* const* parameters, Tensors& tensors) {
  network.for_parameters([&](const Run& run, int i, int number) {
    const DLTensor* t = at(parameters, number);
    const Name name = parameter_name(network, run, i);
    if (!run.cell->parameters[static_cast<size_t>(i)].optional) required(name, t);
    tensors.read(name, t, run.parameter_shape(i));
  });
}

void read_states(const Network& network, const DLTensor* const* states, int64_t B,
                 const char* prefix, const char* time, Tensors& tensors) {
  network.for_states([&](const Run& run, int s, int number) {
    tensors.read(state_name(network, run, s, prefix, time), at(states, number),
                 {B, run.state_size(s)}, number);
  });
}

void write_states(const Network& network, DLTensor* const* states, int64_t B, const char* prefix,
                  const char* time, Tensors& tensors) {
  network.for_states([&](const Run& run, int s, int number) {
    tensors.write(state_name(network, run, s, prefix, time), at(states, number),
                  {B, run.state_size(s)}, number);
  });
}

void refuse_with_frozen(const char* name, bool given) {
  if (given) throw_value_error(expected(name, "null (the weights are frozen)", "an address"));
}

Tensors forward_inputs(const Network& network, const fusedrnn_forward_args& args, Layout layout,
                       bool frozen) {
  check_size("fusedrnn_forward_args", args);
  const DLTensor& x = check_x(network, args.x);
  const int64_t T = x.shape[0], B = x.shape[1];
  if (frozen) {
    check_device("x", x.device, {kDLCPU, 0}, "the frozen weights");
    refuse_with_frozen("network", args.network != nullptr);
    refuse_with_frozen("parameters", args.parameters != nullptr);
    refuse_with_frozen("reserve", args.reserve != nullptr);
    if (args.reserve_bytes != 0) {
      throw_value_error(expected("reserve_bytes", "0 (the weights are frozen)",
                                 std::to_string(args.reserve_bytes)));
    }
  }
  check_place(args, x.device);
  check_compute(network, x.device, frozen);
  Tensors tensors(network, x.device, "x", layout);
  tensors.read("x", &x, {T, B, network.input_size()});
  if (!frozen) read_parameters(network, args.parameters, tensors);
  read_states(network, args.states, B, "", "0", tensors);
  read_masks(args, T, B, tensors);
  return tensors;
}

Tensors backward_inputs(const Network& network, const fusedrnn_backward_args& args, Layout layout) {
  check_size("fusedrnn_backward_args", args);
  const DLTensor& x = check_x(network, args.x);
  const int64_t T = x.shape[0], B = x.shape[1];
  check_place(args, x.device);
  check_compute(network, x.device, false);
  Tensors tensors(network, x.device, "x", layout);
  tensors.read("x", &x, {T, B, network.input_size()});
  read_parameters(network, args.parameters, tensors);
  tensors.read("dy", args.dy, {T, B, network.output_size()});
  read_states(network, args.dstates_n, B, "d", "_n", tensors);
  return tensors;
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

fusedrnn_run infer_run(const CellTable& cell, const DLTensor* x,
                       const DLTensor* const* parameters) {
  check_header("x", required("x", x));
  check_usable_device("x", x->device);
  floating_dtype("x", *x);
  std::vector<Axis> axes;
  axes.reserve(2 * kMaxParameters + 1);
  const auto add = [&](int array, cells::Extent e, int64_t n) {
    axes.push_back({array, e.letter, n % e.times == 0 ? n / e.times : 0});
  };
  if (x->ndim == 3) add(kMaxParameters, {'I'}, x->shape[2]);
  for (int i = 0; i < static_cast<int>(cell.parameters.size()); ++i) {
    const auto& [name, rows, columns, optional] = cell.parameters[static_cast<size_t>(i)];
    const DLTensor* t = at(parameters, i);
    if (!optional) required(name, t);
    if (t == nullptr) continue;
    check_header(name, *t);
    if (columns.letter != 0) {
      const auto wanted = [&] { return "[" + axis_text(rows) + ", " + axis_text(columns) + "]"; };
      if (t->ndim != 2) check_rank(name, *t, 2, wanted().c_str());
      add(i, columns, t->shape[1]);
    }
    if (t->ndim > 0) add(i, rows, t->shape[0]);
  }
  fusedrnn_run run{};
  run.cell = cell.name;
  run.writes = 1;
  uint32_t wrong = 0;
  run.hidden_size = likeliest('H', axes, wrong);
  if (cell.projects) run.projection_size = likeliest('P', axes, wrong);
  run.input_size = likeliest('I', axes, wrong);
  return run;
}

void check_forward_inputs(const Network& network, const fusedrnn_forward_args& args, Layout layout,
                          bool frozen) {
  forward_inputs(network, args, layout, frozen);
}

void check_backward_inputs(const Network& network, const fusedrnn_backward_args& args,
                           Layout layout) {
  backward_inputs(network, args, layout);
}

void check_parameters_to_freeze(const Network& network, const DLTensor* const* parameters,
                                Layout layout) {
  if (network.compute == Compute::tfloat32) check_compute(network, {kDLCPU, 0}, true);
  network.for_parameters([&](const Run& run, int i, int number) {
    const DLTensor* t = at(parameters, number);
    if (t == nullptr) return;
    const Name name = parameter_name(network, run, i);
    check_header(name, *t);
    if (is_host(t->device)) return;
    // A GPU reads weights as they lie.
    throw_type_error(
        expected(name,
                 "weights to freeze on the CPU (on a CUDA device pass them as they are to "
                 "every call)",
                 "an array on " + device_name(t->device)));
  });
  Tensors tensors(network, {kDLCPU, 0}, "the network", layout);
  read_parameters(network, parameters, tensors);
}

void check_forward(const Network& network, const fusedrnn_forward_args& args, bool frozen) {
  Tensors tensors = forward_inputs(network, args, Layout::dense, frozen);
  const int64_t T = args.x->shape[0], B = args.x->shape[1];
  tensors.write("y", &required("y", args.y), {T, B, network.output_size()});
  write_states(network, args.states_n, B, "", "_n", tensors);
  if (!frozen) check_reserve(network, args);
  if (args.reserve != nullptr)
    tensors.outputs.emplace_back("reserve", args.reserve, args.reserve_bytes);
  check_apart(tensors.outputs, tensors.inputs);
}

void check_backward(const Network& network, const fusedrnn_backward_args& args) {
  Tensors tensors = backward_inputs(network, args, Layout::dense);
  const int64_t T = args.x->shape[0], B = args.x->shape[1];
  tensors.write("dx", args.dx, {T, B, network.input_size()});
  network.for_parameters([&](const Run& run, int i, int number) {
    tensors.write(parameter_name(network, run, i, "d"), at(args.dparameters, number),
                  run.parameter_shape(i));
  });
  write_states(network, args.dstates, B, "d", "0", tensors);
  check_reserve(network, args);
  tensors.inputs.emplace_back("reserve", args.reserve, args.reserve_bytes);
  check_apart(tensors.outputs, tensors.inputs);
}

void check_compute(const Network& network, DLDevice device, bool frozen) {
  if (network.compute == Compute::int8 && !frozen) {
    throw_value_error(
        expected("compute", "what is there without frozen weights", "FUSEDRNN_COMPUTE_INT8"));
  }
  if (network.compute == Compute::tfloat32 && !is_cuda(device)) {
    throw_value_error(expected("compute", "what the CPU has (FUSEDRNN_COMPUTE_SAME or _BFLOAT16)",
                               "FUSEDRNN_COMPUTE_TFLOAT32"));
  }
}

void check_batch(const Network& network, int64_t batch) {
  if (batch >= 0 && steps_fit(network, 1, batch)) return;
  const char* wanted = batch < 0 ? "at least 0" : "fewer sequences";
  throw_value_error(expected("batch", wanted, std::to_string(batch)));
}

}  // namespace fusedrnn
