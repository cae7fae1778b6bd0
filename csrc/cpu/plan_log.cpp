#include "cpu/plan_log.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "cells/registry.h"
#include "core/error.h"
#include "core/tensor.h"
#include "cpu/isa/detect.h"

namespace fusedrnn::cpu {

namespace {

enum class Log { unknown, off, plan };

Log read_environment() {
  const char* text = std::getenv("FUSEDRNN_LOG");
  if (text == nullptr || *text == '\0') return Log::off;
  if (std::string(text) == "plan") return Log::plan;
  throw Error(FUSEDRNN_UNAVAILABLE,
              std::string("FUSEDRNN_LOG: expected plan or nothing, got '") + text + "'");
}

std::string number(double value, const char* format = "%.0f") {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

const char* compute_name(Compute compute) {
  switch (compute) {
    case Compute::bfloat16:
      return " in bfloat16";
    case Compute::int8:
      return " in int8";
    default:
      return "";
  }
}

#define FUSEDRNN_CELL_NAME(name, ...) name,
constexpr const char* kCellNames[] = {FUSEDRNN_FOR_EACH_CELL(FUSEDRNN_CELL_NAME)};
#undef FUSEDRNN_CELL_NAME

std::string problem_text(const char* pass, const Problem& p) {
  return std::string(pass) + " " + kCellNames[p.cell] + " " + dtype_name(p.dtype) +
         compute_name(p.compute) + " T=" + std::to_string(p.T) + " B=" + std::to_string(p.B) +
         " I=" + std::to_string(p.I) + " H=" + std::to_string(p.H);
}

// What takes the longest part of a step.
const char* bound_of(const Estimate& e) {
  const double longest = std::max({e.products, e.weights, e.cells, e.barrier});
  if (longest == e.barrier) return "the barrier";
  if (longest == e.cells) return "the gate maths";
  return longest == e.weights ? "reading the weights" : "the products";
}

std::string estimate_text(const Estimate& e, bool chosen) {
  return std::string(chosen ? "  * " : "    ") + std::to_string(e.row_groups) + " x " +
         std::to_string(e.unit_groups) + ": " + number(e.total / 1e3) +
         " kcycles; a step: products " + number(e.products) + ", weights " + number(e.weights) +
         ", gate maths " + number(e.cells) + ", barrier " + number(e.barrier) + "; most in " +
         bound_of(e) + "\n";
}

}  // namespace

bool logs_plans() {
  static std::atomic<Log> log{Log::unknown};
  Log value = log.load(std::memory_order_relaxed);
  if (value == Log::unknown) {
    value = read_environment();
    log.store(value, std::memory_order_relaxed);
  }
  return value == Log::plan;
}

void log_plan(const char* pass, Planner planner, const KernelShape& shape, const Problem& problem,
              const Profile& profile, const Threads& threads, const Plan& chosen) {
  std::vector<Estimate> considered;
  planner(shape, problem, profile, threads, &considered);
  std::string text = "fusedrnn: " + problem_text(pass, problem) + ", " + isa_name(selected_isa()) +
                     ", at most " + std::to_string(threads.most) +
                     " threads: " + std::to_string(chosen.row_groups) + " parts of the batch x " +
                     std::to_string(chosen.unit_groups) + " of the units";
  if (chosen.chunk_steps > 1) {
    text += ", inputs projected " + std::to_string(chosen.chunk_steps) + " steps at a time";
  }
  text += "\n";
  for (const Estimate& e : considered) {
    text +=
        estimate_text(e, e.row_groups == chosen.row_groups && e.unit_groups == chosen.unit_groups);
  }
  std::fputs(text.c_str(), stderr);  // in one call, so that threads' lines do not mix
}

void log_lanes(int lanes, int threads) {
  std::fputs(("fusedrnn: these side by side, " + std::to_string(lanes) + " at a time on " +
              std::to_string(threads) + " threads each\n")
                 .c_str(),
             stderr);
}

}  // namespace fusedrnn::cpu
