// What fusedrnn.nn computes here: linear layers, losses, attention, dropout, over dense NumPy
// arrays.
#include <pybind11/numpy.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "bindings/arguments.h"
#include "bindings/array_view.h"
#include "bindings/gil.h"
#include "bindings/new_arrays.h"
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

namespace {

template <class Real>
constexpr Dtype kDtype = sizeof(Real) == sizeof(float) ? Dtype::float32 : Dtype::float64;

// What `of` returns of a number of the array's type: of a double, or else of a float.
template <class Of>
auto in_type_of(py::handle array, const Of& of) {
  return py::isinstance<py::array_t<double>>(array) ? of(double{}) : of(float{});
}

// A dense array of this type and shape. Python checked the values, and what users gave; what is
// wrong here would crash.
template <class T>
const T* dense(const char* name, py::handle object, std::initializer_list<int64_t> shape) {
  if (!py::isinstance<py::array_t<T>>(object)) {
    refuse_type(name, "a NumPy array of another type", type_name(object));
  }
  const auto array = py::reinterpret_borrow<py::array>(object);
  if (!is_dense(array) ||
      !std::equal(shape.begin(), shape.end(), array.shape(), array.shape() + array.ndim())) {
    throw_value_error(std::string(name) + ": expected a dense array of the call's shape");
  }
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

// The shape of an array of that many axes.
template <int rank>
std::array<int64_t, rank> extents(const char* name, py::handle object) {
  if (!py::isinstance<py::array>(object)) refuse_type(name, "an array", type_name(object));
  const auto array = py::reinterpret_borrow<py::array>(object);
  if (array.ndim() != rank) refuse_value(name, std::to_string(rank) + " axes", array.ndim());
  std::array<int64_t, rank> shape;
  std::copy_n(array.shape(), rank, shape.begin());
  return shape;
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

py::array linear(py::handle x, py::handle w, py::handle bias) {
  return in_type_of(x, [&]<class Real>(Real) {
    const auto [N, I] = extents<2>("x", x);
    const int64_t O = extents<2>("w", w)[0];
    const New<Real> y({N, O});
    run_released(nn::LinearForward<Real>{dense<Real>("x", x, {N, I}), dense<Real>("w", w, {O, I}),
                                         dense_or_null<Real>("bias", bias, {O}), N, I, O, y.data});
    return y.array;
  });
}

py::tuple linear_backward(py::handle x, py::handle w, py::handle dy, bool has_bias) {
  return in_type_of(x, [&]<class Real>(Real) {
    const auto [N, I] = extents<2>("x", x);
    const int64_t O = extents<2>("w", w)[0];
    const New<Real> dx({N, I}), dw({O, I}), dbias({has_bias ? O : 0});
    run_released(nn::LinearBackward<Real>{dense<Real>("x", x, {N, I}), dense<Real>("w", w, {O, I}),
                                          dense<Real>("dy", dy, {N, O}), N, I, O, dx.data, dw.data,
                                          has_bias ? dbias.data : nullptr});
    return py::make_tuple(dx.array, dw.array, dbias.array);
  });
}

py::array sum_of_rows(py::handle places, py::handle rows, int64_t count) {
  return in_type_of(rows, [&]<class Real>(Real) {
    const auto [N, E] = extents<2>("rows", rows);
    const int64_t* const found = dense<int64_t>("places", places, {N});
    for (int64_t n = 0; n < N; ++n) {
      if (found[n] >= count)
        refuse_value("places", "values below " + std::to_string(count), found[n]);
    }
    const New<Real> sums({count, E});
    run_released(
        nn::SumOfRows<Real>{found, dense<Real>("rows", rows, {N, E}), N, E, count, sums.data});
    return sums.array;
  });
}

// --- losses ---

py::array cross_entropy(py::handle logits, py::handle targets, py::handle counts, double smoothing,
                        double scale, py::handle gradient) {
  return in_type_of(logits, [&]<class Real>(Real) {
    const auto [N, V] = extents<2>("logits", logits);
    const New<double> losses({N});
    run_released(nn::CrossEntropy<Real>{
        dense<Real>("logits", logits, {N, V}), dense<int64_t>("targets", targets, {N}),
        dense_or_null<uint8_t>("counts", counts, {N}), smoothing, scale, N, V, losses.data,
        written_or_null<Real>("gradient", gradient, {N, V})});
    return losses.array;
  });
}

py::array ctc(py::handle logits, py::handle targets, py::handle lengths, py::handle target_lengths,
              int64_t blank, py::handle scales, bool zero_infinity, py::handle gradient) {
  return in_type_of(logits, [&]<class Real>(Real) {
    const auto [T, B, V] = extents<3>("logits", logits);
    const int64_t L = extents<2>("targets", targets)[1];
    const New<double> losses({B});
    run_released(nn::Ctc<Real>{
        dense<Real>("logits", logits, {T, B, V}), dense<int64_t>("targets", targets, {B, L}),
        dense<int64_t>("lengths", lengths, {B}),
        dense<int64_t>("target_lengths", target_lengths, {B}), dense<double>("scales", scales, {B}),
        blank, zero_infinity, T, B, V, L, losses.data,
        written_or_null<Real>("gradient", gradient, {T, B, V})});
    return losses.array;
  });
}

// --- attention ---

// What both ways have: `S` and `E` are those of the values.
template <class Real>
nn::AttentionCall<Real> attention_call(py::handle query, py::handle lengths, py::handle v,
                                       int64_t S, int64_t E, double scale) {
  const auto [T, B, N, D] = extents<4>("query", query);
  nn::AttentionCall<Real> call{};
  call.T = T;
  call.S = S;
  call.B = B;
  call.N = N;
  call.D = D;
  call.E = E;
  call.lengths = dense<int64_t>("lengths", lengths, {B});
  call.scale = static_cast<Real>(scale);
  call.query = dense<Real>("query", query, {T, B, N, D});
  call.v = dense_or_null<Real>("v", v, {D});
  return call;
}

py::tuple attention(py::handle query, py::handle keys_t, py::handle values, py::handle lengths,
                    double scale, py::handle v) {
  return in_type_of(query, [&]<class Real>(Real) {
    const auto shape = extents<4>("values", values);  // [S,B,N,E]
    const int64_t S = shape[0], E = shape[3];
    nn::AttentionCall<Real> c = attention_call<Real>(query, lengths, v, S, E, scale);
    c.keys_t = dense<Real>("keys_t", keys_t, {c.B, c.N, c.D, S});
    c.values = dense<Real>("values", values, {S, c.B, c.N, E});
    const New<Real> weights({c.T, c.B, c.N, S}), y({c.T, c.B, c.N, E});
    run_released(nn::AttentionForward<Real>{c, weights.data, y.data});
    return py::make_tuple(y.array, weights.array);
  });
}

py::tuple attention_backward(py::handle query, py::handle keys, py::handle values_t,
                             py::handle lengths, double scale, py::handle v, py::handle weights,
                             py::handle dy, py::handle dweights) {
  return in_type_of(query, [&]<class Real>(Real) {
    const auto shape = extents<4>("values_t", values_t);  // [B,N,E,S]
    const int64_t S = shape[3], E = shape[2];
    nn::AttentionCall<Real> c = attention_call<Real>(query, lengths, v, S, E, scale);
    c.keys = dense<Real>("keys", keys, {S, c.B, c.N, c.D});
    c.values_t = dense<Real>("values_t", values_t, {c.B, c.N, E, S});
    const New<Real> dquery({c.T, c.B, c.N, c.D}), dkeys({S, c.B, c.N, c.D});
    const New<Real> dvalues({S, c.B, c.N, E}), dv({c.v == nullptr ? 0 : c.D});
    run_released(
        nn::AttentionBackward<Real>{c, dense<Real>("weights", weights, {c.T, c.B, c.N, S}),
                                    dense<Real>("dy", dy, {c.T, c.B, c.N, E}),
                                    dense_or_null<Real>("dweights", dweights, {c.T, c.B, c.N, S}),
                                    dquery.data, dkeys.data, dvalues.data, dv.data});
    return py::make_tuple(dquery.array, dkeys.array, dvalues.array, dv.array);
  });
}

// Of keys and values: for each sequence and head, the steps of the memory last.
py::array transposed(py::handle x) {
  return in_type_of(x, [&]<class Real>(Real) {
    const auto [S, B, N, n] = extents<4>("x", x);
    const New<Real> result({B, N, n, S});
    const Real* const from = dense<Real>("x", x, {S, B, N, n});
    {
      const ReleasedGil no_gil;
      nn::kernels<Real>().transpose(from, S, B * N * n, result.data);
    }
    return result.array;
  });
}

// --- dropout ---

// Row 0 of a network: no other mask of a seed has its numbers.
py::array dropout(py::handle x, double rate, uint64_t seed) {
  return in_type_of(x, [&]<class Real>(Real) {
    const auto [T, B, n] = extents<3>("x", x);
    const New<Real> y({T, B, n});
    DropCall call;
    call.dtype = kDtype<Real>;
    call.T = T;
    call.B = B;
    call.n = n;
    call.from = {const_cast<Real*>(dense<Real>("x", x, {T, B, n})), B * n, n};
    call.to = {y.data, B * n, n};
    call.rate = rate;
    call.seed = seed;
    {
      const ReleasedGil no_gil;
      cpu::drop(call);
    }
    return y.array;
  });
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
