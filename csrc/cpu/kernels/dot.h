// One step of a product over k: kDepth numbers of a row times kDepth * W packed weights, added to W
// sums. Sets with instructions for narrow numbers add their own in isa/<name>/.
#pragma once

#include "cpu/kernels/job.h"
#include "cpu/kernels/number.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

template <bool First, class A, class B>
struct Choose {
  using type = A;
};
template <class A, class B>
struct Choose<false, A, B> {
  using type = B;
};

// Row and sums are floats or doubles; the weights are too, or are converted when they are loaded.
template <class Row, class Panel_>
struct Dot {
  using Panel = Panel_;
  static constexpr int kDepth = 1;
  using V = Vec<Row>;
  using Sum = V;
  using Weights = V;
  using Operand = V;

  static FUSEDRNN_MEMBER Weights load(const Panel* p) { return V::load(p); }
  static FUSEDRNN_MEMBER Operand broadcast(const Row* p) { return V::set(*p); }
  static FUSEDRNN_MEMBER V add(V sum, Operand x, Weights w) { return fma(x, w, sum); }
  // kDepth vectors, one a k, as load() reads them.
  static FUSEDRNN_MEMBER void pack(const V* rows, Panel* p) { rows[0].store(p); }

  // Of quantised products (quantised.h): W operands from their whole numbers plus kShifter, what is
  // added for each weight beside kOffset times its row's sum, and the value of a sum.
  static constexpr int kOffset = 0;
  static FUSEDRNN_MEMBER void store_operands(V shifted, V shifter, Row* p) {
    (shifted - shifter).store(p);
  }
  static FUSEDRNN_MEMBER Sum begin(const int32_t*) { return V::zero(); }
  static FUSEDRNN_MEMBER V value(Sum sum) { return sum; }
};

// Products of whole blocks of rows, for sets that have instructions for them: these specialise it
// in isa/<name>/, see isa/amx_bf16/matrix_unit.h.
template <class Row, class Panel>
struct MatrixUnit {
  static constexpr bool kPresent = false;
  static constexpr int kDepth = 1;  // numbers of k that it takes at a time
  static constexpr int kRows = 0;   // of the highest block
  static constexpr int kFewestRows =
      0;  // of a call, for which it is worth while whatever the layer
  // A thread's, and what they are configured for.
  struct Registers {
    explicit FUSEDRNN_MEMBER Registers(const MatrixUse&) {}
  };
};

FUSEDRNN_INLINE int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
