#include "core/validate.h"

#include <utility>

#include "core/args_fields.h"
#include "core/cell_info.h"
#include "core/device.h"
#include "core/dtype.h"
#include "core/error.h"
#include "core/footprint.h"
#include "core/tape.h"
#include "core/tensor.h"
#include "core/tensor_checks.h"

namespace fusedrnn {
namespace {

// The largest buffers of any engine, rounded up: gates and gradients of all steps, packed weights.
constexpr int64_t kPad = 64, kBlocks = 8, kLargestItem = sizeof(double);

void check_dtype(const char* name, const DLTensor& t, Dtype dtype, const char* whose) {
  if (floating_dtype(name, t) == dtype) return;
  const std::string wanted = std::string("dtype ") + dtype_name(dtype) + " (the dtype of ";
  throw_type_error(expected(name, wanted + whose + ")", dtype_name(t.dtype)));
}

// What the floating arrays of a call have in common.
struct Common {
  Dtype dtype;
  DLDevice device;
  const char* whose;  // the argument that decided both
  Layout layout;
};

void check_floats(const char* name, const DLTensor& t, const Common& common, Shape shape) {
  check_header(name, t);
  check_device(name, t.device, common.device, common.whose);
  check_dtype(name, t, common.dtype, common.whose);
  check_shape(name, t, shape);
  check_data(name, t);
  if (common.layout == Layout::dense) {
    check_strides(name, t);
    check_dense(name, t);
  }
}

void check_optional(const char* name, const DLTensor* t, const Common& common, Shape shape) {
  if (t != nullptr) check_floats(name, *t, common, shape);
}

// Of lengths and resets, which may stay in host memory beside arrays on a device.
void check_mask_device(const char* name, const DLTensor& t, const Common& common) {
  if (!is_host(t.device)) check_device(name, t.device, common.device, common.whose);
}

void check_absent(const char* name, const DLTensor* t, const std::string& why) {
  if (t == nullptr) return;
  check_header(name, *t);
  throw_value_error(expected(name, "none (" + why + ")", "shape " + shape_text(*t)));
}

void check_absent(const char* name, const DLTensor* t, const Problem& problem) {
  check_absent(name, t, std::string(find_cell(problem.cell)->name) + " has no cell state");
}

void check_lengths(const DLTensor& t, const Problem& p, const Common& common) {
  check_header("lengths", t);
  check_mask_device("lengths", t, common);
  if (!has_type(t, kDLInt, {8, 16, 32, 64}) && !has_type(t, kDLUInt, {8, 16, 32, 64})) {
    throw_wrong_dtype("lengths", ElementKind::integer, dtype_name(t.dtype));
  }
  check_shape("lengths", t, {p.B});
  check_data("lengths", t);
  if (common.layout == Layout::any) return;
  check_strides("lengths", t);
  if (is_cuda(t.device)) return;
  for (int64_t b = 0; b < p.B; ++b) {
    const int64_t length = read_integer(t, b);
    if (length >= 0 && length <= p.T) continue;
    throw_value_error(expected("lengths", "values from 0 to T = " + std::to_string(p.T),
                               integer_text(t, b) + " at index " + std::to_string(b)));
  }
}

void check_resets(const DLTensor& t, const Problem& p, const Common& common) {
  check_header("resets", t);
  check_mask_device("resets", t, common);
  if (!has_type(t, kDLBool, {8})) {
    throw_wrong_dtype("resets", ElementKind::boolean, dtype_name(t.dtype));
  }
  check_shape("resets", t, {p.T, p.B});
  check_data("resets", t);
  if (common.layout == Layout::dense) check_strides("resets", t);
}

// H as the two weights say it. Where they disagree, the one that two facts speak against is to
// blame: check_shape names it when it meets it.
int64_t hidden_size(const DLTensor& w_ih, const DLTensor& w_hh, int gates) {
  const int64_t rows = w_hh.shape[0];
  const bool rows_agree = w_ih.shape[0] == rows && rows > 0 && rows % gates == 0;
  return rows_agree ? rows / gates : w_hh.shape[1];
}

bool weights_fit(const Problem& p) {
  const int64_t gates = find_cell(p.cell)->gates;
  return p.H <= kMaxBytes && p.I <= kMaxBytes &&
         product_within(kMaxBytes, {gates, p.H + kPad, p.I + kPad, kLargestItem}) &&
         product_within(kMaxBytes, {gates, p.H + kPad, p.H + kPad, kLargestItem});
}

void check_sizes(const Problem& p) {
  const bool weights = weights_fit(p);
  if (weights && steps_fit(p)) return;
  const std::string sizes = "I = " + std::to_string(p.I) + ", H = " + std::to_string(p.H);
  if (!weights) throw_value_error("w_hh: " + sizes + " are too large");
  throw_value_error("x: T = " + std::to_string(p.T) + ", B = " + std::to_string(p.B) + ", " +
                    sizes + " are too large");
}

// A stream or an allocator that nobody would use.
void check_place(const fusedrnn_forward_args& args, DLDevice device) {
  if (is_cuda(device)) return;
  if (stream_of(args) != nullptr) {
    throw_value_error(expected("stream", "null with arrays on the CPU", "a stream"));
  }
  if (allocator_of(args) != nullptr) {
    throw_value_error(expected("allocator", "null with arrays on the CPU", "an allocator"));
  }
}

const CellInfo& known_cell(int32_t cell) {
  const CellInfo* info = find_cell(cell);
  if (info == nullptr) {
    throw_value_error(expected("cell", "a fusedrnn_cell", std::to_string(cell)));
  }
  return *info;
}

const char* compute_name(int32_t compute) {
  switch (compute) {
    case FUSEDRNN_COMPUTE_SAME:
      return "FUSEDRNN_COMPUTE_SAME";
    case FUSEDRNN_COMPUTE_BFLOAT16:
      return "FUSEDRNN_COMPUTE_BFLOAT16";
    case FUSEDRNN_COMPUTE_INT8:
      return "FUSEDRNN_COMPUTE_INT8";
    case FUSEDRNN_COMPUTE_TFLOAT32:
      return "FUSEDRNN_COMPUTE_TFLOAT32";
    default:
      return nullptr;
  }
}

Compute known_compute(int32_t compute, Dtype dtype, DLDevice device) {
  const char* name = compute_name(compute);
  if (name == nullptr) {
    throw_value_error(expected("compute", "a fusedrnn_compute", std::to_string(compute)));
  }
  if (compute == FUSEDRNN_COMPUTE_SAME) return Compute::same;
  if (dtype == Dtype::bfloat16 && compute == FUSEDRNN_COMPUTE_BFLOAT16) {
    return Compute::same;  // its operands are nothing else
  }
  if (dtype != Dtype::float32) {
    throw_value_error(expected(
        "compute", "FUSEDRNN_COMPUTE_SAME with arrays of " + std::string(dtype_name(dtype)), name));
  }
  if (compute == FUSEDRNN_COMPUTE_TFLOAT32 && !is_cuda(device)) {
    throw_value_error(
        expected("compute", "what the CPU has (FUSEDRNN_COMPUTE_SAME or _BFLOAT16)", name));
  }
  return static_cast<Compute>(compute);
}

// Without packed weights nothing is quantised.
Compute passing_compute(int32_t compute, Dtype dtype, DLDevice device) {
  if (compute == FUSEDRNN_COMPUTE_INT8) {
    throw_value_error(
        expected("compute", "what is there without frozen weights", "FUSEDRNN_COMPUTE_INT8"));
  }
  return known_compute(compute, dtype, device);
}

// What x and the call's options say of a problem's steps.
void read_steps(const fusedrnn_forward_args& args, Problem& p) {
  check_rank("x", *args.x, 3, "[T, B, I]");
  p.reverse = args.reverse != 0;
  p.T = args.x->shape[0];
  p.B = args.x->shape[1];
}

void read_hidden_size(const DLTensor& w_ih, const DLTensor& w_hh, const CellInfo& cell,
                      Problem& p) {
  check_header("w_ih", w_ih);
  check_rank("w_ih", w_ih, 2, "[G*H, I]");
  check_header("w_hh", w_hh);
  check_rank("w_hh", w_hh, 2, "[G*H, H]");
  p.H = hidden_size(w_ih, w_hh, cell.gates);
  if (p.H == 0) {
    throw_value_error(expected("w_hh", "a hidden size of at least 1", "shape " + shape_text(w_hh)));
  }
}

// Frozen weights are the CPU's: a GPU reads weights as they lie.
void check_freezable(const DLTensor& w_ih) {
  if (is_host(w_ih.device)) return;
  throw_type_error(expected("w_ih",
                            "weights to freeze on the CPU (on a CUDA device pass them as "
                            "they are to every call)",
                            "an array on " + device_name(w_ih.device)));
}

struct Weights {
  const DLTensor *w_ih, *w_hh, *b_ih, *b_hh;
};

void check_weights(const Weights& w, const CellInfo& cell, const Problem& p, const Common& common) {
  const int64_t rows = cell.gates * p.H;
  check_floats("w_ih", *w.w_ih, common, {rows, p.I});
  check_floats("w_hh", *w.w_hh, common, {rows, p.H});
  check_optional("b_ih", w.b_ih, common, {rows});
  check_optional("b_hh", w.b_hh, common, {rows});
}

void check_states_and_masks(const fusedrnn_forward_args& args, const Problem& p,
                            const Common& common) {
  check_optional("h0", args.h0, common, {p.B, p.H});
  if (find_cell(p.cell)->states > 1) {
    check_optional("c0", args.c0, common, {p.B, p.H});
  } else {
    check_absent("c0", args.c0, p);
  }
  if (args.lengths != nullptr) check_lengths(*args.lengths, p, common);
  if (args.resets != nullptr) check_resets(*args.resets, p, common);
}

Sequence as_sequence(const DLTensor* t) {
  if (t == nullptr) return {};
  return {data_of(*t), stride_of(*t, 0), stride_of(*t, 1)};
}

Matrix as_matrix(const DLTensor* t) {
  if (t == nullptr) return {};
  return {data_of(*t), stride_of(*t, 0)};
}

void* as_vector(const DLTensor* t) { return t == nullptr ? nullptr : data_of(*t); }

}  // namespace

bool steps_fit(const Problem& p) {
  return product_within(kMaxBytes, {p.T, p.B, kBlocks, p.H + kPad, kLargestItem}) &&
         product_within(kMaxBytes, {p.T, p.B, p.I + kPad, kLargestItem});
}

Problem check_forward_inputs(const fusedrnn_forward_args& args, Layout layout) {
  check_fields(args);
  const CellInfo& cell = known_cell(args.cell);
  const DLTensor& x = required("x", args.x);
  const DLTensor& w_ih = required("w_ih", args.w_ih);
  const DLTensor& w_hh = required("w_hh", args.w_hh);
  Problem p;
  p.cell = cell.cell;
  check_header("x", x);
  check_usable_device("x", x.device);
  check_place(args, x.device);
  p.dtype = floating_dtype("x", x);
  p.compute = passing_compute(compute_of(args), p.dtype, x.device);
  const Common common{p.dtype, x.device, "x", layout};
  read_steps(args, p);
  p.I = x.shape[2];
  if (p.I == 0) {
    throw_value_error(expected("x", "an input size of at least 1", "shape " + shape_text(x)));
  }
  read_hidden_size(w_ih, w_hh, cell, p);
  check_sizes(p);
  check_floats("x", x, common, {p.T, p.B, p.I});
  check_weights({&w_ih, &w_hh, args.b_ih, args.b_hh}, cell, p, common);
  check_states_and_masks(args, p, common);
  return p;
}

Problem check_forward_inputs(const fusedrnn_forward_args& args, const Problem& frozen,
                             Layout layout) {
  check_fields(args);
  const CellInfo& cell = *find_cell(frozen.cell);
  if (args.cell != frozen.cell) {
    throw_value_error(expected("cell",
                               std::to_string(frozen.cell) + " (" + cell.name + ", as frozen)",
                               std::to_string(args.cell)));
  }
  if (compute_of(args) != FUSEDRNN_COMPUTE_SAME) {
    throw_value_error(expected("compute", "FUSEDRNN_COMPUTE_SAME (the weights are frozen)",
                               std::to_string(compute_of(args))));
  }
  for (const auto& [name, weight] : {std::pair{"w_ih", args.w_ih}, std::pair{"w_hh", args.w_hh},
                                     std::pair{"b_ih", args.b_ih}, std::pair{"b_hh", args.b_hh}}) {
    check_absent(name, weight, "the weights are frozen");
  }
  const DLTensor& x = required("x", args.x);
  Problem p = frozen;
  check_header("x", x);
  check_device("x", x.device, {kDLCPU, 0}, "the frozen weights");
  check_place(args, x.device);
  check_dtype("x", x, p.dtype, "the weights");
  const Common common{p.dtype, x.device, "x", layout};
  read_steps(args, p);
  check_shape("x", x, {p.T, p.B, p.I});
  check_sizes(p);
  check_floats("x", x, common, {p.T, p.B, p.I});
  check_states_and_masks(args, p, common);
  return p;
}

FreezeCall check_freeze(const fusedrnn_freeze_args& args, Layout layout) {
  if (args.size != sizeof args) {
    throw_value_error(expected("fusedrnn_freeze_args",
                               "size = " + std::to_string(sizeof args) + " (its sizeof)",
                               std::to_string(args.size)));
  }
  const CellInfo& cell = known_cell(args.cell);
  const DLTensor& w_ih = required("w_ih", args.w_ih);
  const DLTensor& w_hh = required("w_hh", args.w_hh);
  FreezeCall call;
  Problem& p = call.problem;
  p.cell = cell.cell;
  check_header("w_ih", w_ih);
  check_freezable(w_ih);
  p.dtype = floating_dtype("w_ih", w_ih);
  p.compute = known_compute(args.compute, p.dtype, w_ih.device);
  const Common common{p.dtype, w_ih.device, "w_ih", layout};
  read_hidden_size(w_ih, w_hh, cell, p);
  p.I = w_ih.shape[1];
  if (p.I == 0) {
    throw_value_error(expected("w_ih", "an input size of at least 1", "shape " + shape_text(w_ih)));
  }
  check_sizes(p);
  check_weights({&w_ih, &w_hh, args.b_ih, args.b_hh}, cell, p, common);
  if (layout == Layout::any) return call;
  call.w_ih = as_matrix(&w_ih);
  call.w_hh = as_matrix(&w_hh);
  call.b_ih = as_vector(args.b_ih);
  call.b_hh = as_vector(args.b_hh);
  return call;
}

ForwardCall check_forward(const fusedrnn_forward_args& args, const Problem* frozen) {
  ForwardCall call;
  const Problem p = call.problem = frozen == nullptr
                                       ? check_forward_inputs(args, Layout::dense)
                                       : check_forward_inputs(args, *frozen, Layout::dense);
  const Common common{p.dtype, args.x->device, "x", Layout::dense};
  const bool has_c = find_cell(p.cell)->states > 1;
  check_floats("y", required("y", args.y), common, {p.T, p.B, p.H});
  check_floats("h_n", required("h_n", args.h_n), common, {p.B, p.H});
  if (has_c) {
    check_floats("c_n", required("c_n", args.c_n), common, {p.B, p.H});
  } else {
    check_absent("c_n", args.c_n, p);
  }
  call.x = as_sequence(args.x);
  call.w_ih = as_matrix(args.w_ih);
  call.w_hh = as_matrix(args.w_hh);
  call.b_ih = as_vector(args.b_ih);
  call.b_hh = as_vector(args.b_hh);
  call.state_0[0] = as_matrix(args.h0);
  call.state_0[1] = as_matrix(args.c0);
  call.y = as_sequence(args.y);
  call.state_n[0] = as_matrix(args.h_n);
  call.state_n[1] = as_matrix(args.c_n);

  const int64_t item = item_size(p.dtype);
  const Footprint outputs[] = {footprint("y", call.y, p.T, p.B, p.H, item),
                               footprint("h_n", call.state_n[0], p.B, p.H, item),
                               footprint("c_n", call.state_n[1], p.B, p.H, item)};
  check_outputs_apart(outputs);
  check_apart(outputs[0], footprint("x", call.x, p.T, p.B, p.I, item));
  return call;
}

namespace {

Common common_of(const fusedrnn_tape& tape, Layout layout) {
  return {tape.call.problem.dtype, tape.device, "x", layout};
}

}  // namespace

void check_backward_inputs(const fusedrnn_backward_args& args, const fusedrnn_tape& tape,
                           Layout layout) {
  const Problem& p = tape.call.problem;
  const Common common = common_of(tape, layout);
  check_fields(args);
  if (stream_of(args) != nullptr && !is_cuda(tape.device)) {
    throw_value_error(expected("stream", "null with arrays on the CPU", "a stream"));
  }
  check_optional("dy", args.dy, common, {p.T, p.B, p.H});
  check_optional("dh_n", args.dh_n, common, {p.B, p.H});
  if (find_cell(p.cell)->states > 1) {
    check_optional("dc_n", args.dc_n, common, {p.B, p.H});
  } else {
    check_absent("dc_n", args.dc_n, p);
  }
  if (args.accumulate_dx != 0 && args.dx == nullptr) {
    throw_value_error("dx: expected an array to accumulate into, got none");
  }
}

BackwardCall check_backward(const fusedrnn_backward_args& args, const fusedrnn_tape& tape) {
  const ForwardCall& forward = tape.call;
  const Problem& p = forward.problem;
  const Common common = common_of(tape, Layout::dense);
  const CellInfo& cell = *find_cell(p.cell);
  const int64_t rows = cell.gates * p.H;
  check_backward_inputs(args, tape, Layout::dense);
  check_optional("dx", args.dx, common, {p.T, p.B, p.I});
  check_optional("dw_ih", args.dw_ih, common, {rows, p.I});
  check_optional("dw_hh", args.dw_hh, common, {rows, p.H});
  check_optional("db_ih", args.db_ih, common, {rows});
  check_optional("db_hh", args.db_hh, common, {rows});
  check_optional("dh0", args.dh0, common, {p.B, p.H});
  if (cell.states > 1) {
    check_optional("dc0", args.dc0, common, {p.B, p.H});
  } else {
    check_absent("dc0", args.dc0, p);
  }
  BackwardCall call;
  call.problem = p;
  call.x = forward.x;
  call.w_ih = forward.w_ih;
  call.w_hh = forward.w_hh;
  call.dy = as_sequence(args.dy);
  call.dstate_n[0] = as_matrix(args.dh_n);
  call.dstate_n[1] = as_matrix(args.dc_n);
  call.dx = as_sequence(args.dx);
  call.accumulate_dx = args.accumulate_dx != 0;
  call.dw_ih = as_matrix(args.dw_ih);
  call.dw_hh = as_matrix(args.dw_hh);
  call.db_ih = as_vector(args.db_ih);
  call.db_hh = as_vector(args.db_hh);
  call.dstate_0[0] = as_matrix(args.dh0);
  call.dstate_0[1] = as_matrix(args.dc0);

  const int64_t item = item_size(p.dtype);
  const Footprint outputs[] = {footprint("dx", call.dx, p.T, p.B, p.I, item),
                               footprint("dw_ih", call.dw_ih, rows, p.I, item),
                               footprint("dw_hh", call.dw_hh, rows, p.H, item),
                               footprint("db_ih", Matrix{call.db_ih, rows}, 1, rows, item),
                               footprint("db_hh", Matrix{call.db_hh, rows}, 1, rows, item),
                               footprint("dh0", call.dstate_0[0], p.B, p.H, item),
                               footprint("dc0", call.dstate_0[1], p.B, p.H, item)};
  check_outputs_apart(outputs);
  check_apart(outputs[0], footprint("x", call.x, p.T, p.B, p.I, item));
  check_apart(outputs[0], footprint("dy", call.dy, p.T, p.B, p.H, item));
  return call;
}

}  // namespace fusedrnn
