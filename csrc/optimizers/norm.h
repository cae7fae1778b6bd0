// Norms of gradients.
#pragma once

#include <cstdint>

namespace fusedrnn::optimizers {

// In double, the same bits whatever the number of threads; infinite where it overflows.
double sum_of_squares(const float* numbers, int64_t size);
double sum_of_squares(const double* numbers, int64_t size);

}  // namespace fusedrnn::optimizers
