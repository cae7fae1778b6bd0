// One step of a rule for many parameters, shared out among the pool's threads.
#pragma once

#include <vector>

#include "optimizers/rules.h"

namespace fusedrnn::optimizers {

// The same bits whatever the number of threads: every number is computed by itself. Denormals are
// flushed, for the moments of parameters that get no gradient decay to them and would stay there.
void step(const Sgd& rule, const std::vector<Numbers<float>>& parameters);
void step(const Sgd& rule, const std::vector<Numbers<double>>& parameters);
void step(const Adam& rule, const std::vector<Numbers<float>>& parameters);
void step(const Adam& rule, const std::vector<Numbers<double>>& parameters);
void step(const RmsProp& rule, const std::vector<Numbers<float>>& parameters);
void step(const RmsProp& rule, const std::vector<Numbers<double>>& parameters);

}  // namespace fusedrnn::optimizers
