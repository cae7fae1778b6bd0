// What a cell is, for every engine: a table and stages.
//
// The table says what a caller gives and gets: parameters, states, their shapes in letters. From it
// come the C ABI's checks and messages, packing, the bindings, and the sizes of all memory.
// Letters: I inputs, H hidden units, P numbers of h (H itself in cells without a projection), G
// gate blocks.
//
//   kParameters[]  name, rows, columns (none: a vector), whether it may be absent (then zeros)
//   kStates[]      name and size; state 0 is h, which is also the output
//   kInput         the product of x before the walk through time: a = W x + b, blocks 0..kGates-1
//   kStages[]      what a step does, in order; see Stage
//   kConstants[]   in cells that have them: numbers fixed for a run, see Constant
//
// A stage is at most one product, then one map. The maps are the cell's equations, forward and
// backward, over a vector type V: one vector of units of one sequence at one step. V has the four
// operators, unary minus, V::set(x), V::zero(), and, found by argument-dependent lookup, fma(a,b,c)
// = a*b+c, fnma(a,b,c) = c-a*b, a <= b (false for NaN), select(mask,a,b), sigmoid, tanh, relu, exp
// and softplus, log(1 + exp(x)): so the logarithm of sigmoid(x) is -softplus(-x); abs, min(a,b) and
// max(a,b), which are b where either is NaN; expm1(x), exp(x) - 1 of numbers up to 0. Nothing else
// is used, so that the same equations compile for each CPU instruction set and for CUDA. Maps know
// neither threads nor layouts.
//
//   kGates        G: blocks of a
//   kSaved        vectors a unit that forward leaves for backward
//   kGateNames[]  not in every cell: names of the gates that the first of these vectors are
//   kDeltas       D: blocks of gradients that backward produces, in an order of its choice: blocks
//                 0..G-1 are the gradients of a; those of u of one stage are contiguous too, in its
//                 order. Blocks whose two gradients agree are one. Blocks beyond these are
//                 gradients of vector parameters, before their sum over steps and sequences.
//   kUnitVectors  vectors of units in one packed panel (a panel has G * kUnitVectors vectors)
//
//   input_delta(g), recurrent_delta(g)   the blocks that hold the gradients of a_g and u_g
//   vector_delta(k)                      the block that holds the gradient of w[k]
//   delta_stage(d)                       the stage whose backward writes block d
//   delta_product(d)                     not in every cell: block d, one of the last, is that block
//                                        times that saved vector, and need not be stored
//
//   forward<i>(a, u, w, prev, saved, next, passed)
//       a, u: pre-activations by gate (u: those of stage i alone); w: the vector parameters, block
//       by block in the order of the table; prev: the states that enter the step; saved: written,
//       and readable in later stages; next: the states that leave it (each set by the
//       last stage over units of its size);
//       passed: what the product of stage i+1 multiplies.
//   backward<i>(saved, w, prev, dnext, dpassed, delta, dprev)
//       stages run from the last to the first. dnext: gradients of the states that leave the step;
//       dpassed: gradient of what forward<i> passed on, where it did; delta: written by block;
//       dprev: the part of the gradients of prev that does not go through a product (kept between
//       stages).
//
// Maps of cells with kNorms[] (see Norm) take one argument more: forward<i> the norms, of which it
// uses those of its stage, and backward<i> `dnormed`: the gradients of normalised numbers, block by
// block in the order of norms, behind those of a passed row what reaches it beside its norm.
// normed_stage(n) is the stage whose backward writes block n; saved_stage(s), in such cells, the
// one whose forward writes saved[s]. A norm's statistics are those of a whole row; its gradient,
// through them, reaches the blocks input_delta and recurrent_delta, which no backward<i> writes
// (delta_stage -1), or `dpassed` of the stage that passed the row on.
//
// The maps of a cell with constants take one argument more, `k`: the Known of a
// Cell::Constants<number of V>, which is made of the constants in the order of the table and has a
// member `usual`, outside of the loops. Those of a cell that kMasksCandidate see in it what the
// candidate is multiplied by (Masked).
#pragma once

// FUSEDRNN_CELL_FN: part of a map, inlined into what runs it. FUSEDRNN_CELL_ONCE: compiled once a
// vector type, for what is rare. FUSEDRNN_CELL_HOST: makes constants.
#if defined(__CUDACC__)
#define FUSEDRNN_CELL_FN static __device__ __forceinline__
#define FUSEDRNN_CELL_MEMBER __device__ __forceinline__
#define FUSEDRNN_CELL_ONCE static __device__ __noinline__
#define FUSEDRNN_CELL_HOST static inline
#else
#define FUSEDRNN_CELL_FN static inline
#define FUSEDRNN_CELL_MEMBER inline __attribute__((always_inline))
#define FUSEDRNN_CELL_ONCE static __attribute__((noinline))
#define FUSEDRNN_CELL_HOST static inline __attribute__((always_inline))
#endif

// Unrolls a loop over gates, so that arrays of vectors indexed in it stay in registers.
#if defined(__CUDACC__) || defined(__clang__)
#define FUSEDRNN_CELL_UNROLL _Pragma("unroll")
#else
#define FUSEDRNN_CELL_UNROLL _Pragma("GCC unroll 4")
#endif

namespace fusedrnn::cells {

// Plain constants, for every compiler: host and device code use them in constant expressions alone.

// An axis: `times` blocks of I, H or P; letter 0: there is no such axis.
struct Extent {
  char letter = 0;
  int times = 1;
};

struct Parameter {
  const char* name;
  Extent rows, columns;
  bool optional = false;
};

struct State {
  const char* name;
  char size;  // 'H' or 'P'
};

// Rows [first * H, (first + gates) * H) of a matrix, and of a vector that is added.
struct Product {
  int weights = -1;  // numbers of parameters; -1: none
  int bias = -1;
  int first = 0;
  int gates = 0;
};

enum class Operand {
  none,    // the stage has no product
  h,       // state 0 as it enters the step
  passed,  // what the stage before passed on
};

struct Stage {
  Operand operand = Operand::none;
  Product product{};
};

// Where a norm's numbers come from.
enum class Normed {
  input,      // a
  recurrent,  // u of its stage
  sum,        // a + u
  passed,     // the row that the stage before passed on, which comes as u[0]
};

// A norm over a row of `gates` blocks from `first` on (Ba, Kiros and Hinton 2016): x^ = (x - mean)
// * scale, with scale = 1 / sqrt(variance + epsilon), and the number of a row's units H.
struct Norm {
  Normed of;
  int first, gates;
  int stage;  // whose maps see it
  int saved;  // the first of the saved vectors that hold x^
  double epsilon;
};

template <class V>
struct NormOf {
  V mean, scale;

  FUSEDRNN_CELL_MEMBER V of(V x) const { return (x - mean) * scale; }
};

// What a constant may be.
enum class Range {
  finite,      // a number
  limit,       // at least kLeastLimit; infinity: none
  activation,  // a number of cells::Activation
  flag,        // 0 or 1
};

constexpr double kLeastLimit = 1e-9, kNoLimit = __builtin_huge_val();

// A number of a run that no gradient reaches.
struct Constant {
  const char* name;
  Range range;
  double usual;  // where the caller gives no constants
};

template <class T, int N>
consteval int length(const T (&)[N]) {
  return N;
}

template <class Cell>
inline constexpr int kStateCount = length(Cell::kStates);
template <class Cell>
inline constexpr int kStageCount = length(Cell::kStages);

template <class Cell>
consteval int count_constants() {
  if constexpr (requires { Cell::kConstants; }) {
    return length(Cell::kConstants);
  } else {
    return 0;
  }
}
template <class Cell>
inline constexpr int kConstantCount = count_constants<Cell>();

template <class Cell>
consteval int count_norms() {
  if constexpr (requires { Cell::kNorms; }) {
    return length(Cell::kNorms);
  } else {
    return 0;
  }
}
template <class Cell>
inline constexpr int kNormCount = count_norms<Cell>();

// Blocks of `dnormed`.
template <class Cell>
consteval int count_normed() {
  int blocks = 0;
  if constexpr (kNormCount<Cell> > 0) {
    for (const Norm& norm : Cell::kNorms) {
      blocks += norm.gates + (norm.of == Normed::passed ? 1 : 0);
    }
  }
  return blocks;
}
template <class Cell>
inline constexpr int kNormedBlocks = count_normed<Cell>();

template <class Cell>
consteval bool is_bias(int parameter) {
  if (Cell::kInput.bias == parameter) return true;
  for (const Stage& stage : Cell::kStages) {
    if (stage.product.bias == parameter) return true;
  }
  return false;
}

// A block of H numbers of a vector parameter that maps read: w[k].
struct VectorBlock {
  int parameter = -1;
  int block = 0;
};

template <class Cell>
consteval VectorBlock vector_block(int k) {
  for (int i = 0; i < length(Cell::kParameters); ++i) {
    const Parameter& parameter = Cell::kParameters[i];
    if (parameter.columns.letter != 0 || is_bias<Cell>(i)) continue;
    if (k < parameter.rows.times) return {i, k};
    k -= parameter.rows.times;
  }
  return {};
}

template <class Cell>
consteval int count_vectors() {
  int n = 0;
  while (vector_block<Cell>(n).parameter >= 0) ++n;
  return n;
}
template <class Cell>
inline constexpr int kVectorCount = count_vectors<Cell>();

struct NoConstants {
  static constexpr bool kUsual = true;
};

// Constants of which it is known, where maps are compiled, whether all activations are the usual
// ones.
template <class Constants, bool kAreUsual>
struct Known : Constants {
  static constexpr bool kUsual = kAreUsual;
};

template <class Cell>
consteval bool masks_candidate() {
  return requires { Cell::kMasksCandidate; };
}

// Recurrent dropout of the candidate (Semeniuta et al. 2016): 0 where it is dropped.
template <class K, class V>
struct Masked : K {
  bool masks;  // whether the candidate is multiplied at all
  V candidate;
};

// The candidate as it is added to the state, and its gradient: what is dropped is zero whatever it
// was.
template <class V, class K>
FUSEDRNN_CELL_FN V masked(V candidate, const K& k) {
  if (!k.masks) return candidate;
  return select(k.candidate <= V::zero(), V::zero(), candidate * k.candidate);
}

template <class Cell, class Real>
consteval auto constants_type() {
  if constexpr (kConstantCount<Cell> > 0) {
    return typename Cell::template Constants<Real>{};
  } else {
    return NoConstants{};
  }
}
template <class Cell, class Real>
using ConstantsOf = decltype(constants_type<Cell, Real>());
template <class Cell, class Real>
FUSEDRNN_CELL_HOST ConstantsOf<Cell, Real> constants_of(const double* constants) {
  if constexpr (kConstantCount<Cell> > 0) {
    return ConstantsOf<Cell, Real>::of(constants);
  } else {
    return {};
  }
}

// Whether backward writes block `delta` for the gradient of a vector parameter alone, and which may
// be absent; then its number, else -1.
template <class Cell>
consteval int only_for_optional(int delta) {
  for (int gate = 0; gate < Cell::kGates; ++gate) {
    if (Cell::input_delta(gate) == delta || Cell::recurrent_delta(gate) == delta) return -1;
  }
  for (int k = 0; k < kVectorCount<Cell>; ++k) {
    const int parameter = vector_block<Cell>(k).parameter;
    if (Cell::vector_delta(k) == delta && Cell::kParameters[parameter].optional) return parameter;
  }
  return -1;
}

struct DeltaProduct {
  int delta = -1, saved = -1;
};
template <class Cell>
consteval DeltaProduct delta_product(int delta) {
  if constexpr (requires { Cell::delta_product(delta); }) {
    return Cell::delta_product(delta);
  } else {
    return {};
  }
}

// The table of a cell with dense weights for x and h, and a bias each.
template <int Gates>
struct Dense {
  static constexpr int kGates = Gates;
  static constexpr Parameter kParameters[] = {
      {"w_ih", {'H', Gates}, {'I'}},
      {"w_hh", {'H', Gates}, {'H'}},
      {"b_ih", {'H', Gates}, {}, true},
      {"b_hh", {'H', Gates}, {}, true},
  };
  enum { kWih, kWhh, kBih, kBhh };
  static constexpr Product kInput{kWih, kBih, 0, Gates};
  static constexpr int vector_delta(int) { return -1; }
};

// With all gates from one product, and one gradient block a gate.
template <int Gates>
struct OneStage : Dense<Gates> {
  static constexpr Stage kStages[] = {
      {Operand::h, {Dense<Gates>::kWhh, Dense<Gates>::kBhh, 0, Gates}}};
  static constexpr int kDeltas = Gates;
  static constexpr int input_delta(int gate) { return gate; }
  static constexpr int recurrent_delta(int gate) { return gate; }
  static constexpr int delta_stage(int) { return 0; }
};

}  // namespace fusedrnn::cells
