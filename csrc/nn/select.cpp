#include "cpu/isa/detect.h"
#include "cpu/isa/unit_list.h"
#include "nn/share.h"

namespace fusedrnn::cpu {

#define FUSEDRNN_DECLARE_NN(isa)             \
  namespace isa {                            \
  extern const NnKernels<float> nn_float32;  \
  extern const NnKernels<double> nn_float64; \
  }
FUSEDRNN_FOR_EACH_NN(FUSEDRNN_DECLARE_NN)
#undef FUSEDRNN_DECLARE_NN

}  // namespace fusedrnn::cpu

namespace fusedrnn::nn {
namespace {

struct Set {
  cpu::Isa isa;
  const cpu::NnKernels<float>* float32;
  const cpu::NnKernels<double>* float64;
};
#define FUSEDRNN_LIST_NN(isa) {cpu::Isa::isa, &cpu::isa::nn_float32, &cpu::isa::nn_float64},
constexpr Set kSets[] = {FUSEDRNN_FOR_EACH_NN(FUSEDRNN_LIST_NN)};  // the slowest first
#undef FUSEDRNN_LIST_NN

// That of the set in use, or of the next slower one that has kernels.
const Set& current() {
  static const Set& found = []() -> const Set& {
    const Set* best = &kSets[0];
    for (const Set& set : kSets) {
      if (set.isa <= cpu::selected_isa()) best = &set;
    }
    return *best;
  }();
  return found;
}

}  // namespace

template <>
const cpu::NnKernels<float>& kernels() {
  return *current().float32;
}
template <>
const cpu::NnKernels<double>& kernels() {
  return *current().float64;
}

}  // namespace fusedrnn::nn
