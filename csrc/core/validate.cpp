#include "core/validate.h"

#include <cstddef>
#include <span>

#include "core/cell_info.h"
#include "core/error.h"
#include "core/footprint.h"
#include "core/tensor.h"
#include "core/tensor_checks.h"

namespace fusedrnn {
namespace {

void check_floats(const char* name, const DLTensor& t, Dtype dtype, Shape shape, Layout layout) {
  check_header(name, t);
  if (floating_dtype(name, t) != dtype) {
    throw_type_error(expected(name, std::string("dtype ") + dtype_name(dtype) + " (the dtype of x)",
                              dtype_name(t.dtype)));
  }
  check_shape(name, t, shape);
  check_data(name, t);
  if (layout == Layout::dense) {
    check_strides(name, t);
    check_dense(name, t);
  }
}

void check_optional(const char* name, const DLTensor* t, Dtype dtype, Shape shape, Layout layout) {
  if (t != nullptr) check_floats(name, *t, dtype, shape, layout);
}

void check_absent(const char* name, const DLTensor* t, const Problem& problem) {
  if (t == nullptr) return;
  check_header(name, *t);
  const std::string cell = find_cell(problem.cell)->name;
  throw_value_error(
      expected(name, "none (" + cell + " has no cell state)", "shape " + shape_text(*t)));
}

void check_lengths(const DLTensor& t, const Problem& p, Layout layout) {
  check_header("lengths", t);
  if (!has_type(t, kDLInt, {8, 16, 32, 64}) && !has_type(t, kDLUInt, {8, 16, 32, 64})) {
    throw_wrong_dtype("lengths", ElementKind::integer, dtype_name(t.dtype));
  }
  check_shape("lengths", t, {p.B});
  check_data("lengths", t);
  if (layout == Layout::any) return;
  check_strides("lengths", t);
  for (int64_t b = 0; b < p.B; ++b) {
    const int64_t length = read_integer(t, b);
    if (length >= 0 && length <= p.T) continue;
    throw_value_error(expected("lengths", "values from 0 to T = " + std::to_string(p.T),
                               integer_text(t, b) + " at index " + std::to_string(b)));
  }
}

void check_resets(const DLTensor& t, const Problem& p, Layout layout) {
  check_header("resets", t);
  if (!has_type(t, kDLBool, {8})) {
    throw_wrong_dtype("resets", ElementKind::boolean, dtype_name(t.dtype));
  }
  check_shape("resets", t, {p.T, p.B});
  check_data("resets", t);
  if (layout == Layout::dense) check_strides("resets", t);
}

// H as the two weights say it. Where they disagree, the one that two facts speak against is to
// blame: check_shape names it when it meets it.
int64_t hidden_size(const DLTensor& w_ih, const DLTensor& w_hh, int gates) {
  const int64_t rows = w_hh.shape[0];
  const bool rows_agree = w_ih.shape[0] == rows && rows > 0 && rows % gates == 0;
  return rows_agree ? rows / gates : w_hh.shape[1];
}

void check_sizes(const Problem& p, int gates) {
  // The largest buffers of any engine: gates and gradients of all steps, packed weights; rounded
  // up.
  constexpr int64_t kPad = 64, kBlocks = 8, kBytes = sizeof(double);
  const bool weights_fit = p.H <= kMaxBytes && p.I <= kMaxBytes &&
                           product_within(kMaxBytes, {gates, p.H + kPad, p.I + kPad, kBytes}) &&
                           product_within(kMaxBytes, {gates, p.H + kPad, p.H + kPad, kBytes});
  const bool steps_fit = weights_fit &&
                         product_within(kMaxBytes, {p.T, p.B, kBlocks, p.H + kPad, kBytes}) &&
                         product_within(kMaxBytes, {p.T, p.B, p.I + kPad, kBytes});
  if (steps_fit) return;
  const std::string sizes = "I = " + std::to_string(p.I) + ", H = " + std::to_string(p.H);
  if (!weights_fit) throw_value_error("w_hh: " + sizes + " are too large");
  throw_value_error("x: T = " + std::to_string(p.T) + ", B = " + std::to_string(p.B) + ", " +
                    sizes + " are too large");
}

// Structs of callers that were compiled before their last fields existed are accepted: `oldest` is
// the smallest size that ever was.
void check_struct_size(const char* name, size_t size, size_t expected_size, size_t oldest) {
  if (size == expected_size || size == oldest) return;
  throw_value_error(expected(name, "size = " + std::to_string(expected_size) + " (its sizeof)",
                             std::to_string(size)));
}

Compute compute_of(const fusedrnn_forward_args& args, Dtype dtype) {
  const bool has_field = args.size > offsetof(fusedrnn_forward_args, compute);
  const int32_t compute = has_field ? args.compute : int32_t{FUSEDRNN_COMPUTE_SAME};
  if (compute == FUSEDRNN_COMPUTE_SAME) return Compute::same;
  if (compute != FUSEDRNN_COMPUTE_BFLOAT16) {
    throw_value_error(expected("compute", "a fusedrnn_compute", std::to_string(compute)));
  }
  if (dtype == Dtype::bfloat16) return Compute::same;  // its operands are nothing else
  if (dtype == Dtype::float32) return Compute::bfloat16;
  throw_value_error(
      expected("compute", "FUSEDRNN_COMPUTE_SAME with arrays of " + std::string(dtype_name(dtype)),
               "FUSEDRNN_COMPUTE_BFLOAT16"));
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

}  // namespace

Problem check_forward_inputs(const fusedrnn_forward_args& args, Layout layout) {
  check_struct_size("fusedrnn_forward_args", args.size, sizeof args,
                    offsetof(fusedrnn_forward_args, compute));
  const CellInfo* cell = find_cell(args.cell);
  if (cell == nullptr) {
    throw_value_error(expected("cell", "a fusedrnn_cell", std::to_string(args.cell)));
  }
  const DLTensor& x = required("x", args.x);
  const DLTensor& w_ih = required("w_ih", args.w_ih);
  const DLTensor& w_hh = required("w_hh", args.w_hh);
  check_header("x", x);
  Problem p;
  p.cell = cell->cell;
  p.reverse = args.reverse != 0;
  p.dtype = floating_dtype("x", x);
  p.compute = compute_of(args, p.dtype);
  check_rank("x", x, 3, "[T, B, I]");
  p.T = x.shape[0];
  p.B = x.shape[1];
  p.I = x.shape[2];
  if (p.I == 0) {
    throw_value_error(expected("x", "an input size of at least 1", "shape " + shape_text(x)));
  }
  check_header("w_ih", w_ih);
  check_rank("w_ih", w_ih, 2, "[G*H, I]");
  check_header("w_hh", w_hh);
  check_rank("w_hh", w_hh, 2, "[G*H, H]");
  p.H = hidden_size(w_ih, w_hh, cell->gates);
  if (p.H == 0) {
    throw_value_error(expected("w_hh", "a hidden size of at least 1", "shape " + shape_text(w_hh)));
  }
  check_sizes(p, cell->gates);
  const int64_t rows = cell->gates * p.H;
  check_floats("x", x, p.dtype, {p.T, p.B, p.I}, layout);
  check_floats("w_ih", w_ih, p.dtype, {rows, p.I}, layout);
  check_floats("w_hh", w_hh, p.dtype, {rows, p.H}, layout);
  check_optional("b_ih", args.b_ih, p.dtype, {rows}, layout);
  check_optional("b_hh", args.b_hh, p.dtype, {rows}, layout);
  check_optional("h0", args.h0, p.dtype, {p.B, p.H}, layout);
  if (cell->states > 1) {
    check_optional("c0", args.c0, p.dtype, {p.B, p.H}, layout);
  } else {
    check_absent("c0", args.c0, p);
  }
  if (args.lengths != nullptr) check_lengths(*args.lengths, p, layout);
  if (args.resets != nullptr) check_resets(*args.resets, p, layout);
  return p;
}

ForwardCall check_forward(const fusedrnn_forward_args& args) {
  ForwardCall call;
  const Problem p = call.problem = check_forward_inputs(args, Layout::dense);
  const bool has_c = find_cell(p.cell)->states > 1;
  check_floats("y", required("y", args.y), p.dtype, {p.T, p.B, p.H}, Layout::dense);
  check_floats("h_n", required("h_n", args.h_n), p.dtype, {p.B, p.H}, Layout::dense);
  if (has_c) {
    check_floats("c_n", required("c_n", args.c_n), p.dtype, {p.B, p.H}, Layout::dense);
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

void check_backward_inputs(const fusedrnn_backward_args& args, const Problem& p, Layout layout) {
  check_struct_size("fusedrnn_backward_args", args.size, sizeof args, sizeof args);
  check_optional("dy", args.dy, p.dtype, {p.T, p.B, p.H}, layout);
  check_optional("dh_n", args.dh_n, p.dtype, {p.B, p.H}, layout);
  if (find_cell(p.cell)->states > 1) {
    check_optional("dc_n", args.dc_n, p.dtype, {p.B, p.H}, layout);
  } else {
    check_absent("dc_n", args.dc_n, p);
  }
  if (args.accumulate_dx != 0 && args.dx == nullptr) {
    throw_value_error("dx: expected an array to accumulate into, got none");
  }
}

BackwardCall check_backward(const fusedrnn_backward_args& args, const ForwardCall& forward) {
  const Problem& p = forward.problem;
  const CellInfo& cell = *find_cell(p.cell);
  const int64_t rows = cell.gates * p.H;
  check_backward_inputs(args, p, Layout::dense);
  check_optional("dx", args.dx, p.dtype, {p.T, p.B, p.I}, Layout::dense);
  check_optional("dw_ih", args.dw_ih, p.dtype, {rows, p.I}, Layout::dense);
  check_optional("dw_hh", args.dw_hh, p.dtype, {rows, p.H}, Layout::dense);
  check_optional("db_ih", args.db_ih, p.dtype, {rows}, Layout::dense);
  check_optional("db_hh", args.db_hh, p.dtype, {rows}, Layout::dense);
  check_optional("dh0", args.dh0, p.dtype, {p.B, p.H}, Layout::dense);
  if (cell.states > 1) {
    check_optional("dc0", args.dc0, p.dtype, {p.B, p.H}, Layout::dense);
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
