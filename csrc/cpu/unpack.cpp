#include "cpu/unpack.h"

#include <cstring>

#include "cpu/plan.h"

// Conversions of single numbers, compiled for every machine.
#define FUSEDRNN_ISA any_machine
#include "cpu/kernels/number.h"
#undef FUSEDRNN_ISA

namespace fusedrnn::cpu {
namespace {

template <class Number>
Number at(const void* memory, int64_t index) {
  Number number;
  std::memcpy(&number, static_cast<const char*>(memory) + index * int64_t{sizeof number},
              sizeof number);
  return number;
}

template <class Number>
void set(void* memory, int64_t index, Number number) {
  std::memcpy(static_cast<char*>(memory) + index * int64_t{sizeof number}, &number, sizeof number);
}

// Where numbers of one type lie: number i of a group of W lanes.
template <class Number>
struct Plain {
  static Number read(const void* panel, int64_t group, int64_t lane, int64_t width) {
    return at<Number>(panel, group * width + lane);
  }
};
// The values of W lanes, then their tangents.
template <class Real>
struct Apart {
  static Dual<Real> read(const void* panel, int64_t group, int64_t lane, int64_t width) {
    Dual<Real> number;
    number.value = at<Real>(panel, 2 * group * width + lane);
    number.tangent = at<Real>(panel, 2 * group * width + width + lane);
    return number;
  }
};

// Panels [panel][depth / K][gates][U][K] into rows [.., depth].
template <class Layout>
void unpack_weights(const KernelShape& shape, const Problem& p, int64_t heads,
                    const ProductShape& product, const void* packed, void* rows) {
  const int64_t units = extent(p, product.units), depth = depth_of(p, product);
  const int64_t columns = product.of_heads ? extent(p, product.depth) / heads : depth;
  const int64_t U = panel_units(shape), K = shape.depth, gates = product.gates;
  // Of K > 1 are no formats whose lanes lie apart: a group is K numbers of each lane there.
  const int64_t width = K == 1 ? shape.width : 1;
  const int64_t panel = round_up(depth, shape.depth_unit) * gates * U;
  for (int64_t g = 0; g < gates; ++g) {
    for (int64_t unit = 0; unit < units; ++unit) {
      const int64_t row = (product.first + g) * units + unit, lane = unit % U;
      // Where heads went together, the row's own begins somewhere among them.
      const int64_t first = columns == depth ? 0 : unit / columns * columns % depth;
      for (int64_t column = 0; column < columns; ++column) {
        const int64_t k = first + column;
        const int64_t number = unit / U * panel + ((k / K * gates + g) * U + lane) * K + k % K;
        set(rows, row * columns + column,
            Layout::read(packed, number / width, number % width, width));
      }
    }
  }
}

// One of `count` vectors [panel][count][U] into block `block` of a parameter.
template <class Real, class Edge>
void unpack_vector(const KernelShape& shape, int64_t units, int index, int count, int block,
                   const void* packed, void* parameter) {
  const int64_t U = panel_units(shape);
  for (int64_t unit = 0; unit < units; ++unit) {
    const Real number = at<Real>(packed, (unit / U * count + index) * U + unit % U);
    if constexpr (any_machine::kSame<Real, Edge>) {
      set(parameter, block * units + unit, number);
    } else {
      Edge narrow;
      any_machine::convert(number, narrow);  // exact: it was one
      set(parameter, block * units + unit, narrow);
    }
  }
}

template <class Layout, class Real, class Edge>
void unpack_all(const KernelShape& shape, const Problem& p, int64_t heads, const PackedCell& packed,
                const UnpackCall& call) {
  const auto unpack = [&](const ProductShape& product, const PackedProduct& from) {
    if (product.weights < 0) return;
    unpack_weights<Layout>(shape, p, heads, product, from.weights,
                           call.parameters[product.weights]);
    const int64_t units = extent(p, product.units);
    for (int g = 0; g < product.gates; ++g) {
      if (product.bias >= 0) {
        unpack_vector<Real, Edge>(shape, units, g, product.gates, product.first + g, from.bias,
                                  call.parameters[product.bias]);
      }
      if (shape.quantised) {
        unpack_vector<float, float>(shape, units, g, product.gates, product.first + g, from.scale,
                                    call.scales[product.weights]);
      }
    }
  };
  unpack(shape.input, packed.input);
  for (int i = 0; i < shape.stage_count; ++i) unpack(shape.stages[i].product, packed.stages[i]);
  for (int k = 0; k < shape.vector_count; ++k) {
    const VectorShape& vector = shape.vector_gradients[k];
    unpack_vector<Real, Edge>(shape, p.H, k, shape.vector_count, vector.block, packed.vectors,
                              call.parameters[vector.parameter]);
  }
}

}  // namespace

void unpack_cell(const KernelShape& shape, const Problem& p, int64_t heads,
                 const PackedCell& packed, const UnpackCall& call) {
  switch (p.dtype) {
    case Dtype::float64:
      return unpack_all<Plain<double>, double, double>(shape, p, heads, packed, call);
    case Dtype::bfloat16:
      return unpack_all<Plain<Bf16>, float, Bf16>(shape, p, heads, packed, call);
    case Dtype::float16:
      return unpack_all<Plain<Half>, float, Half>(shape, p, heads, packed, call);
    case Dtype::dual32:
      return unpack_all<Apart<float>, Dual<float>, Dual<float>>(shape, p, heads, packed, call);
    case Dtype::dual64:
      return unpack_all<Apart<double>, Dual<double>, Dual<double>>(shape, p, heads, packed, call);
    case Dtype::float32:
      break;
  }
  switch (p.compute) {
    case Compute::bfloat16:
      return unpack_all<Plain<Bf16>, float, float>(shape, p, heads, packed, call);
    case Compute::int8:
      return unpack_all<Plain<Int8>, float, float>(shape, p, heads, packed, call);
    default:
      return unpack_all<Plain<float>, float, float>(shape, p, heads, packed, call);
  }
}

}  // namespace fusedrnn::cpu
