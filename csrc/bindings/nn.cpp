// What fusedrnn.nn computes here: linear layers, losses, attention, dropout, over dense NumPy
// arrays.
#include <pybind11/numpy.h>

#include <cstdint>
#include <initializer_list>
#include <string>

#include "bindings/arguments.h"
#include "bindings/array_arguments.h"
#include "bindings/gil.h"
#include "bindings/numpy_types.h"
#include "bindings/register.h"
#include "core/error.h"
#include "core/tensor.h"
#include "cpu/engine.h"
#include "nn/attention.h"
#include "nn/linear.h"
#include "nn/losses.h"
#include "nn/share.h"

namespace fusedrnn::bindings {

namespace py = pybind11;

namespace {

template <class Real>
constexpr Dtype kDtype = sizeof(Real) == sizeof(float) ? Dtype::float32 : Dtype::float64;

bool is_double(py::handle array) { return py::isinstance<py::array_t<double>>(array); }

// A dense array of this type and shape. Python checked the values, and what users gave; what is
// wrong here would crash.
template <class T>
const T* dense(const char* name, py::handle object, std::initializer_list<int64_t> shape) {
  constexpr int kNeeded = int{py::detail::npy_api::NPY_ARRAY_ALIGNED_} | int{py::array::c_style};
  if (!py::isinstance<py::array_t<T>>(object)) {
    refuse_type(name, "a NumPy array of another type", type_name(object));
  }
  const auto array = py::reinterpret_borrow<py::array>(object);
  bool right = (array.flags() & kNeeded) == kNeeded &&
               array.ndim() == static_cast<py::ssize_t>(shape.size());
  for (py::ssize_t i = 0; right && i < array.ndim(); ++i)
    right = array.shape(i) == shape.begin()[i];
  if (!right) throw_value_error(std::string(name) + ": expected a dense array of the call's shape");
  return static_cast<const T*>(array.data());
}

template <class T>
const T* dense_or_null(const char* name, py::handle object, std::initializer_list<int64_t> shape) {
  return object.is_none() ? nullptr : dense<T>(name, object, shape);
}

template <class T>
T* written_or_null(const char* name, py::handle object, std::initializer_list<int64_t> shape) {
  if (object.is_none()) return nullptr;
  T* const memory = const_cast<T*>(dense<T>(name, object, shape));
  if (!py::reinterpret_borrow<py::array>(object).writeable()) {
    throw_value_error(std::string(name) + ": expected an array to write to, got a read-only one");
  }
  return memory;
}

// Extent `axis` of an array of `rank` axes.
int64_t extent(const char* name, py::handle object, int rank, int axis) {
  if (!py::isinstance<py::array>(object)) refuse_type(name, "an array", type_name(object));
  const auto array = py::reinterpret_borrow<py::array>(object);
  if (array.ndim() != rank) refuse_value(name, std::to_string(rank) + " axes", array.ndim());
  return array.shape(axis);
}

// A new array, and where its numbers are.
template <class T>
struct New {
  explicit New(const Shape& shape)
      : array(empty_array(numpy_dtype(kDtype<T>), shape)),
        data(static_cast<T*>(array.mutable_data())) {}

  py::array array;
  T* data;
};

template <class Call>
void run_released(const Call& call) {
  const ReleasedGil no_gil;
  nn::run(call);
}

// --- linear layers, sums of rows ---

template <class Real>
py::array linear_of(py::handle x, py::handle w, py::handle bias) {
  const int64_t N = extent("x", x, 2, 0), I = extent("x", x, 2, 1), O = extent("w", w, 2, 0);
  const New<Real> y({N, O});
  run_released(nn::LinearForward<Real>{dense<Real>("x", x, {N, I}), dense<Real>("w", w, {O, I}),
                                       dense_or_null<Real>("bias", bias, {O}), N, I, O, y.data});
  return y.array;
}

py::array linear(py::handle x, py::handle w, py::handle bias) {
  return is_double(x) ? linear_of<double>(x, w, bias) : linear_of<float>(x, w, bias);
}

template <class Real>
py::tuple linear_backward_of(py::handle x, py::handle w, py::handle dy, bool has_bias) {
  const int64_t N = extent("x", x, 2, 0), I = extent("x", x, 2, 1), O = extent("w", w, 2, 0);
  const New<Real> dx({N, I}), dw({O, I}), dbias({has_bias ? O : 0});
  run_released(nn::LinearBackward<Real>{dense<Real>("x", x, {N, I}), dense<Real>("w", w, {O, I}),
                                        dense<Real>("dy", dy, {N, O}), N, I, O, dx.data, dw.data,
                                        has_bias ? dbias.data : nullptr});
  return py::make_tuple(dx.array, dw.array, dbias.array);
}

py::tuple linear_backward(py::handle x, py::handle w, py::handle dy, bool has_bias) {
  return is_double(x) ? linear_backward_of<double>(x, w, dy, has_bias)
                      : linear_backward_of<float>(x, w, dy, has_bias);
}

template <class Real>
py::array sum_of_rows_of(py::handle places, py::handle rows, int64_t count) {
  const int64_t N = extent("rows", rows, 2, 0), E = extent("rows", rows, 2, 1);
  const int64_t* const found = dense<int64_t>("places", places, {N});
  for (int64_t n = 0; n < N; ++n) {
    if (found[n] >= count)
      refuse_value("places", "values below " + std::to_string(count), found[n]);
  }
  const New<Real> sums({count, E});
  run_released(
      nn::SumOfRows<Real>{found, dense<Real>("rows", rows, {N, E}), N, E, count, sums.data});
  return sums.array;
}

py::array sum_of_rows(py::handle places, py::handle rows, int64_t count) {
  return is_double(rows) ? sum_of_rows_of<double>(places, rows, count)
                         : sum_of_rows_of<float>(places, rows, count);
}

// --- losses ---

template <class Real>
py::array cross_entropy_of(py::handle logits, py::handle targets, py::handle counts,
                           double smoothing, double scale, py::handle gradient) {
  const int64_t N = extent("logits", logits, 2, 0), V = extent("logits", logits, 2, 1);
  const New<double> losses({N});
  run_released(nn::CrossEntropy<Real>{
      dense<Real>("logits", logits, {N, V}), dense<int64_t>("targets", targets, {N}),
      dense_or_null<uint8_t>("counts", counts, {N}), smoothing, scale, N, V, losses.data,
      written_or_null<Real>("gradient", gradient, {N, V})});
  return losses.array;
}

py::array cross_entropy(py::handle logits, py::handle targets, py::handle counts, double smoothing,
                        double scale, py::handle gradient) {
  return is_double(logits)
             ? cross_entropy_of<double>(logits, targets, counts, smoothing, scale, gradient)
             : cross_entropy_of<float>(logits, targets, counts, smoothing, scale, gradient);
}

template <class Real>
py::array ctc_of(py::handle logits, py::handle targets, py::handle lengths,
                 py::handle target_lengths, int64_t blank, py::handle scales, bool zero_infinity,
                 py::handle gradient) {
  const auto size = [&](int axis) { return extent("logits", logits, 3, axis); };
  const int64_t T = size(0), B = size(1), V = size(2), L = extent("targets", targets, 2, 1);
  const New<double> losses({B});
  run_released(nn::Ctc<Real>{dense<Real>("logits", logits, {T, B, V}),
                             dense<int64_t>("targets", targets, {B, L}),
                             dense<int64_t>("lengths", lengths, {B}),
                             dense<int64_t>("target_lengths", target_lengths, {B}),
                             dense<double>("scales", scales, {B}), blank, zero_infinity, T, B, V, L,
                             losses.data, written_or_null<Real>("gradient", gradient, {T, B, V})});
  return losses.array;
}

py::array ctc(py::handle logits, py::handle targets, py::handle lengths, py::handle target_lengths,
              int64_t blank, py::handle scales, bool zero_infinity, py::handle gradient) {
  return is_double(logits) ? ctc_of<double>(logits, targets, lengths, target_lengths, blank, scales,
                                            zero_infinity, gradient)
                           : ctc_of<float>(logits, targets, lengths, target_lengths, blank, scales,
                                           zero_infinity, gradient);
}

// --- attention ---

// Its sizes: `values` is [S,B,N,E], or [B,N,E,S].
template <class Real>
nn::AttentionCall<Real> attention_call(py::handle query, py::handle lengths, py::handle v,
                                       int64_t S, int64_t E, double scale) {
  const auto size = [&](int axis) { return extent("query", query, 4, axis); };
  nn::AttentionCall<Real> call{};
  call.T = size(0);
  call.B = size(1);
  call.N = size(2);
  call.D = size(3);
  call.S = S;
  call.E = E;
  call.query = dense<Real>("query", query, {call.T, call.B, call.N, call.D});
  call.lengths = dense<int64_t>("lengths", lengths, {call.B});
  call.v = dense_or_null<Real>("v", v, {call.D});
  call.scale = static_cast<Real>(scale);
  return call;
}

template <class Real>
py::tuple attention_of(py::handle query, py::handle keys_t, py::handle values, py::handle lengths,
                       double scale, py::handle v) {
  const int64_t S = extent("values", values, 4, 0), E = extent("values", values, 4, 3);
  nn::AttentionForward<Real> forward{};
  nn::AttentionCall<Real>& c = forward.call;
  c = attention_call<Real>(query, lengths, v, S, E, scale);
  c.keys_t = dense<Real>("keys_t", keys_t, {c.B, c.N, c.D, S});
  c.values = dense<Real>("values", values, {S, c.B, c.N, E});
  const New<Real> weights({c.T, c.B, c.N, S}), y({c.T, c.B, c.N, E});
  forward.weights = weights.data;
  forward.y = y.data;
  run_released(forward);
  return py::make_tuple(y.array, weights.array);
}

py::tuple attention(py::handle query, py::handle keys_t, py::handle values, py::handle lengths,
                    double scale, py::handle v) {
  return is_double(query) ? attention_of<double>(query, keys_t, values, lengths, scale, v)
                          : attention_of<float>(query, keys_t, values, lengths, scale, v);
}

template <class Real>
py::tuple attention_backward_of(py::handle query, py::handle keys, py::handle values_t,
                                py::handle lengths, double scale, py::handle v, py::handle weights,
                                py::handle dy, py::handle dweights) {
  const int64_t S = extent("values_t", values_t, 4, 3), E = extent("values_t", values_t, 4, 2);
  nn::AttentionBackward<Real> backward{};
  nn::AttentionCall<Real>& c = backward.call;
  c = attention_call<Real>(query, lengths, v, S, E, scale);
  c.keys = dense<Real>("keys", keys, {S, c.B, c.N, c.D});
  c.values_t = dense<Real>("values_t", values_t, {c.B, c.N, E, S});
  backward.weights = dense<Real>("weights", weights, {c.T, c.B, c.N, S});
  backward.dy = dense<Real>("dy", dy, {c.T, c.B, c.N, E});
  backward.dweights = dense_or_null<Real>("dweights", dweights, {c.T, c.B, c.N, S});
  const New<Real> dquery({c.T, c.B, c.N, c.D}), dkeys({S, c.B, c.N, c.D});
  const New<Real> dvalues({S, c.B, c.N, E}), dv({c.v == nullptr ? 0 : c.D});
  backward.dquery = dquery.data;
  backward.dkeys = dkeys.data;
  backward.dvalues = dvalues.data;
  backward.dv = dv.data;
  run_released(backward);
  return py::make_tuple(dquery.array, dkeys.array, dvalues.array, dv.array);
}

py::tuple attention_backward(py::handle query, py::handle keys, py::handle values_t,
                             py::handle lengths, double scale, py::handle v, py::handle weights,
                             py::handle dy, py::handle dweights) {
  return is_double(query) ? attention_backward_of<double>(query, keys, values_t, lengths, scale, v,
                                                          weights, dy, dweights)
                          : attention_backward_of<float>(query, keys, values_t, lengths, scale, v,
                                                         weights, dy, dweights);
}

// Of keys and values: for each sequence and head, the steps of the memory last.
template <class Real>
py::array transposed_of(py::handle x) {
  const auto size = [&](int axis) { return extent("x", x, 4, axis); };
  const int64_t S = size(0), columns = size(1) * size(2) * size(3);
  const New<Real> result({size(1), size(2), size(3), S});
  const Real* const from = dense<Real>("x", x, {S, size(1), size(2), size(3)});
  {
    const ReleasedGil no_gil;
    nn::kernels<Real>().transpose(from, S, columns, result.data);
  }
  return result.array;
}

py::array transposed(py::handle x) {
  return is_double(x) ? transposed_of<double>(x) : transposed_of<float>(x);
}

// --- dropout ---

// Row 0 of a network: no other mask of a seed has its numbers.
template <class Real>
py::array dropout_of(py::handle x, double rate, uint64_t seed) {
  const auto size = [&](int axis) { return extent("x", x, 3, axis); };
  DropCall call;
  call.dtype = kDtype<Real>;
  call.T = size(0);
  call.B = size(1);
  call.n = size(2);
  const New<Real> y({call.T, call.B, call.n});
  const Real* const from = dense<Real>("x", x, {call.T, call.B, call.n});
  call.from = {const_cast<Real*>(from), call.B * call.n, call.n};
  call.to = {y.data, call.B * call.n, call.n};
  call.rate = rate;
  call.seed = seed;
  {
    const ReleasedGil no_gil;
    cpu::drop(call);
  }
  return y.array;
}

py::array dropout(py::handle x, double rate, uint64_t seed) {
  return is_double(x) ? dropout_of<double>(x, rate, seed) : dropout_of<float>(x, rate, seed);
}

}  // namespace

void register_nn(py::module_& m) {
  m.def("nn_linear", &linear, py::arg("x"), py::arg("w"), py::arg("bias"),
        "x w^T + bias of x [N,I] and w [O,I].");
  m.def("nn_linear_backward", &linear_backward, py::arg("x"), py::arg("w"), py::arg("dy"),
        py::arg("has_bias"), "Gradients of x, w and bias.");
  m.def("nn_sum_of_rows", &sum_of_rows, py::arg("places"), py::arg("rows"), py::arg("count"),
        "[count,E]: the rows [N,E] whose place is each, added up; below 0 is none.");
  m.def("nn_cross_entropy", &cross_entropy, py::arg("logits"), py::arg("targets"),
        py::arg("counts"), py::arg("smoothing"), py::arg("scale"), py::arg("gradient"),
        "Losses of rows; their gradients, times scale, are written to gradient.");
  m.def("nn_ctc", &ctc, py::arg("logits"), py::arg("targets"), py::arg("lengths"),
        py::arg("target_lengths"), py::arg("blank"), py::arg("scales"), py::arg("zero_infinity"),
        py::arg("gradient"), "The same of sequences.");
  m.def("nn_attention", &attention, py::arg("query"), py::arg("keys_t"), py::arg("values"),
        py::arg("lengths"), py::arg("scale"), py::arg("v"), "y and weights.");
  m.def("nn_attention_backward", &attention_backward, py::arg("query"), py::arg("keys"),
        py::arg("values_t"), py::arg("lengths"), py::arg("scale"), py::arg("v"), py::arg("weights"),
        py::arg("dy"), py::arg("dweights"), "Gradients of query, keys, values and v.");
  m.def("nn_transposed", &transposed, py::arg("x"), "[B,N,n,S] of x [S,B,N,n].");
  m.def("nn_dropout", &dropout, py::arg("x"), py::arg("rate"), py::arg("seed"),
        "What is left of x, [T,B,n].");
}

}  // namespace fusedrnn::bindings
