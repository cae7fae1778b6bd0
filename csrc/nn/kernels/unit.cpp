// The kernels of nn/ for one instruction set; cmake/cpu_units.cmake compiles it for each.
#include FUSEDRNN_ISA_HEADER

#include "nn/kernels/additive.h"
#include "nn/kernels/ctc_step.h"
#include "nn/kernels/product.h"
#include "nn/kernels/softmax.h"
#include "nn/kernels/table.h"
#include "nn/kernels/transpose.h"

namespace fusedrnn::cpu::FUSEDRNN_ISA {

template <class Real>
constexpr NnKernels<Real> kNnKernels = {
    maximum<Real>,          exponentials<Real>,      sum_above<Real>,    scale_row<Real>,
    transpose_matrix<Real>, product<Real>,           long_product<Real>, softmax_backward<Real>,
    additive_scores<Real>,  additive_backward<Real>, ctc_step<Real>,
};

extern const NnKernels<float> nn_float32;
extern const NnKernels<double> nn_float64;
const NnKernels<float> nn_float32 = kNnKernels<float>;
const NnKernels<double> nn_float64 = kNnKernels<double>;

}  // namespace fusedrnn::cpu::FUSEDRNN_ISA
