// Packing: weights into panels, once a call, and operand blocks of the weight gradients.
#pragma once

#include "cpu/kernels/tile.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

// Whether the products of a single row read weights that nothing has packed (job.h, single_row).
template <class F>
constexpr bool kUnpacked =
    kSame<typename F::Edge, typename F::Real> && kSame<typename F::Panel, typename F::Real>;

// The block of W x W numbers at `src`, transposed.
template <class V, class Number>
FUSEDRNN_INLINE void load_transposed(const Number* src, int64_t stride, V (&block)[V::width]) {
  if constexpr (requires { V::load_transposed(src, stride, block); }) {
    V::load_transposed(src, stride, block);
  } else {
    FUSEDRNN_UNROLL
    for (int lane = 0; lane < V::width; ++lane) block[lane] = V::load(src + lane * stride);
    V::transpose(block);
  }
}

// Of what follows, the blocks from number k on that are not whole.
template <class F>
FUSEDRNN_ONCE void transpose_rest(const typename F::Edge* src, int64_t src_stride, int64_t lanes,
                                  int64_t k, int64_t depth, typename F::Panel* dst,
                                  int64_t dst_stride) {
  using V = typename F::V;
  constexpr int W = V::width, D = F::Dot::kDepth;
  for (; k < depth; k += W) {
    const int n = static_cast<int>(depth - k < W ? depth - k : W);
    V block[W];
    FUSEDRNN_UNROLL
    for (int lane = 0; lane < W; ++lane) {
      block[lane] = lane >= lanes ? V::zero()
                    : n == W      ? V::load(src + lane * src_stride + k)
                                  : V::load(src + lane * src_stride + k, n);
    }
    V::transpose(block);
    if (n == W) {
      FUSEDRNN_UNROLL
      for (int i = 0; i < W; i += D) F::Dot::pack(block + i, dst + (k + i) / D * dst_stride);
    } else {  // rows of the block beyond n are zero
      typename F::Real tail[W * W];
      FUSEDRNN_UNROLL
      for (int i = 0; i < W; ++i) block[i].store(tail + i * W);
      for (int i = 0; i < n; i += D) {
        V group[D];
        FUSEDRNN_UNROLL
        for (int d = 0; d < D; ++d) group[d] = V::load(tail + (i + d) * W);
        F::Dot::pack(group, dst + (k + i) / D * dst_stride);
      }
    }
  }
}

// W rows of a matrix, transposed: the vector of k's of group k / D goes to dst + k / D *
// dst_stride, one lane a row; rows beyond `lanes` count as zero. Blocks of W x W go through
// registers.
template <class F>
FUSEDRNN_INLINE void transpose_rows(const typename F::Edge* src, int64_t src_stride, int64_t lanes,
                                    int64_t depth, typename F::Panel* dst, int64_t dst_stride) {
  using V = typename F::V;
  constexpr int W = V::width, D = F::Dot::kDepth;
  static_assert(W % D == 0);
  int64_t k = 0;
  // Numbers that are packed as they are need not become vectors of Real.
  if constexpr (requires { F::Dot::pack_transposed(src, src_stride, dst, dst_stride); }) {
    for (; lanes >= W && k + W * D <= depth; k += W * D) {
      F::Dot::pack_transposed(src + k, src_stride, dst + k / D * dst_stride, dst_stride);
    }
  }
  for (; lanes >= W && k + W <= depth; k += W) {
    V block[W];
    load_transposed(src + k, src_stride, block);
    FUSEDRNN_UNROLL
    for (int i = 0; i < W; i += D) F::Dot::pack(block + i, dst + (k + i) / D * dst_stride);
  }
  if (k < depth) transpose_rest<F>(src, src_stride, lanes, k, depth, dst, dst_stride);
}

// Numbers in a panel of `vectors` vectors and `depth` k.
template <class F>
FUSEDRNN_INLINE int64_t panel_size(int64_t depth, int64_t vectors) {
  return F::padded(depth) * vectors * F::V::width;
}

// Zeros in the groups of k of a panel that lie beyond `depth`.
template <class F>
FUSEDRNN_INLINE void clear_tail(int64_t depth, int64_t vectors, typename F::Panel* panel) {
  if constexpr (F::kDepthUnit > F::Dot::kDepth) {
    const int64_t used = round_up(depth, F::Dot::kDepth) * vectors * F::V::width;
    const int64_t all = panel_size<F>(depth, vectors);
    __builtin_memset(panel + used, 0, static_cast<size_t>(all - used) * sizeof *panel);
  }
}

// The W numbers from src[column] on, zero beyond `columns` and where src is null.
template <class V, class Number>
FUSEDRNN_INLINE V load_columns(const Number* src, int64_t column, int64_t columns) {
  const int64_t n = src == nullptr ? 0 : columns - column;
  return n >= V::width ? V::load(src + column)
         : n > 0       ? V::load(src + column, static_cast<int>(n))
                       : V::zero();
}

// A product's weights into panels [panel][depth / D][gates][U][D]; `packed` is where the first of
// `panels` goes.
template <class F>
FUSEDRNN_ONCE void pack_weights(const Problem& p, const ProductShape& product, int unit_vectors,
                                const Matrix& w, Range panels, typename F::Panel* packed) {
  constexpr int W = F::V::width, D = F::Dot::kDepth;
  const auto* data = static_cast<const typename F::Edge*>(w.data);
  const int64_t units = extent(p, product.units), depth = depth_of(p, product);
  const int64_t vectors = int64_t{product.gates} * unit_vectors, group = vectors * W * D;
  for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
    typename F::Panel* dst = packed + (panel - panels.begin) * panel_size<F>(depth, vectors);
    clear_tail<F>(depth, vectors, dst);
    for (int g = 0; g < product.gates; ++g) {
      for (int j = 0; j < unit_vectors; ++j, dst += W * D) {
        const int64_t unit = (panel * unit_vectors + j) * W;
        const int64_t lanes = unit < units ? units - unit : 0;
        const int64_t row = (product.first + g) * units + (lanes > 0 ? unit : 0);
        transpose_rows<F>(data + row * w.stride, w.stride, lanes, depth, dst, group);
      }
    }
  }
}

// out = bias + row x the weights of one panel, as run_tile() computes it from a packed one: a block
// of W x W numbers at a time, transposed in registers. For formats that convert nothing.
template <class F>
FUSEDRNN_ONCE void multiply_unpacked(const Problem& p, const ProductShape& product,
                                     int unit_vectors, const Matrix& w, int64_t panel,
                                     const typename F::Row* row, const typename F::Real* bias,
                                     typename F::Real* out) {
  using V = typename F::V;
  constexpr int W = V::width;
  static_assert(kUnpacked<F> && F::kDepthUnit == 1);
  const int64_t units = extent(p, product.units), depth = depth_of(p, product);
  const int vectors = product.gates * unit_vectors;
  for (int v = 0; v < vectors; ++v) V::load(bias + v * W).store(out + v * W);
  // Sums of all vectors in turn: the additions to one of them wait for each other.
  for (int64_t k = 0; k < depth; k += W) {
    const int64_t held = depth - k < W ? depth - k : W;
    for (int v = 0; v < vectors; ++v) {
      const int64_t unit = (panel * unit_vectors + v % unit_vectors) * W, lanes = units - unit;
      if (lanes <= 0) continue;
      const int64_t number = (product.first + v / unit_vectors) * units + unit;
      const auto* const src = static_cast<const typename F::Edge*>(w.data) + number * w.stride + k;
      V sum = V::load(out + v * W);
      const auto add = [&](int64_t its_lanes, int64_t count) FUSEDRNN_LAMBDA {
        alignas(64) typename F::Panel block[W * W];
        transpose_rows<F>(src, w.stride, its_lanes, count, block, W);
        FUSEDRNN_UNROLL
        for (int i = 0; i < W; ++i) {
          if (i >= count) break;
          sum = F::Dot::add(sum, F::Dot::broadcast(row + k + i), F::Dot::load(block + i * W));
        }
      };
      if (lanes >= W && held == W) {
        add(W, W);
      } else {
        add(lanes, held);
      }
      sum.store(out + v * W);
    }
  }
}

// `units` numbers of a vector, or zeros where it is null, into number `index` of
// [panel][count][unit_vectors * W].
template <class F>
FUSEDRNN_INLINE void pack_vector(const typename F::Edge* src, int64_t units, int unit_vectors,
                                 Range panels, int index, int count, typename F::Real* packed) {
  using V = typename F::V;
  for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
    typename F::Real* dst = packed + (panel * count + index) * unit_vectors * V::width;
    for (int j = 0; j < unit_vectors; ++j) {
      load_columns<V>(src, (panel * unit_vectors + j) * V::width, units).store(dst + j * V::width);
    }
  }
}

// Block `block` of a vector parameter, null where there is none.
template <class F>
FUSEDRNN_INLINE const typename F::Edge* vector_block(const Matrix* parameters, int parameter,
                                                     int64_t block, int64_t units) {
  const void* data = parameter < 0 ? nullptr : parameters[parameter].data;
  return data == nullptr ? nullptr : static_cast<const typename F::Edge*>(data) + block * units;
}

// The vector parameters that maps read.
template <class F>
FUSEDRNN_ONCE void pack_vectors(const Problem& p, const CellShape& shape, const Matrix* parameters,
                                const Share& share, void* packed) {
  const Range panels = share.of_all(blocks_of(p.H, shape.unit_vectors * F::V::width));
  for (int k = 0; k < shape.vector_count; ++k) {
    const VectorShape& vector = shape.vector_gradients[k];
    pack_vector<F>(vector_block<F>(parameters, vector.parameter, vector.block, p.H), p.H,
                   shape.unit_vectors, panels, k, shape.vector_count,
                   static_cast<typename F::Real*>(packed));
  }
}

// One group of k: rows src[0..D) (null: zeros) from `column` on, into dst[Vectors * W][D].
template <class F, int Vectors, class Number>
FUSEDRNN_INLINE void pack_group(const Number* const* src, int64_t column, int64_t columns,
                                typename F::Panel* dst) {
  using V = typename F::V;
  constexpr int W = V::width, D = F::Dot::kDepth;
  FUSEDRNN_UNROLL
  for (int v = 0; v < Vectors; ++v) {
    V group[D];
    FUSEDRNN_UNROLL
    for (int d = 0; d < D; ++d) group[d] = load_columns<V>(src[d], column + v * W, columns);
    F::Dot::pack(group, dst + v * W * D);
  }
}

// Rows [0, depth) of w [.., columns] into panels [panel][depth / D][Vectors*W][D]; `panel_stride`
// numbers lie between panels, because a panel may hold several matrices.
template <class F, int Vectors>
FUSEDRNN_ONCE void pack_columns(const typename F::Edge* w, int64_t stride, int64_t depth,
                                int64_t columns, Range panels, int64_t panel_stride,
                                typename F::Panel* packed) {
  constexpr int D = F::Dot::kDepth;
  constexpr int64_t kWidth = int64_t{Vectors} * F::V::width;
  for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
    typename F::Panel* dst = packed + panel * panel_stride;
    for (int64_t k = 0; k < F::padded(depth); k += D, dst += kWidth * D) {
      const typename F::Edge* rows[D];
      FUSEDRNN_UNROLL
      for (int d = 0; d < D; ++d) rows[d] = k + d < depth ? w + (k + d) * stride : nullptr;
      pack_group<F, Vectors>(rows, panel * kWidth, columns, dst);
    }
  }
}

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
