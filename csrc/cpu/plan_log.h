// FUSEDRNN_LOG=plan: what the cost model chose for each call, and why, on standard error.
#pragma once

#include "cpu/plan.h"

namespace fusedrnn::cpu {

// Throws where FUSEDRNN_LOG is set to anything but "plan". Read once, at the first call.
bool logs_plans();

// `pass`: "forward" or "backward".
void log_plan(const char* pass, Planner planner, const KernelShape& shape, const Problem& problem,
              const Profile& profile, const Threads& threads, const Plan& chosen);

// After the plans of runs that are taken side by side.
void log_lanes(int lanes, int threads);

}  // namespace fusedrnn::cpu
