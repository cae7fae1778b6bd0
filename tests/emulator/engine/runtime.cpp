#include "engine/runtime.h"

#include <cstdlib>

namespace fusedrnn::emulator {
namespace {

thread_local int device_of_thread = 0;
thread_local Fault last_error{cudaSuccess, ""};
thread_local Fault last_failure{cudaSuccess, ""};  // kept for its text when the error is taken

uint64_t seed_of_environment() {
  const char* const text = std::getenv("FUSEDRNN_EMULATOR_SEED");
  return text == nullptr ? 0 : std::strtoull(text, nullptr, 10);
}

}  // namespace

Runtime::Runtime() { set_seed(seed_of_environment()); }

void Runtime::set_seed(uint64_t value) {
  seed = value;
  orders_drawn = 0;
  queue.set_seed(value);
}

Runtime& runtime() {
  static auto* const process = new Runtime;  // outlives every static object that uses it
  return *process;
}

int current_device() { return device_of_thread; }
void set_current_device(int device) { device_of_thread = device; }

void set_last_error(const Fault& fault) { last_error = last_failure = fault; }

}  // namespace fusedrnn::emulator

using fusedrnn::emulator::runtime;

cudaError_t cudaGetLastError() {
  const cudaError_t error = cudaPeekAtLastError();
  fusedrnn::emulator::last_error = {cudaSuccess, ""};
  return error;
}

cudaError_t cudaPeekAtLastError() {
  const std::lock_guard<std::recursive_mutex> guard(runtime().lock);
  const cudaError_t sticky = runtime().sticky.code;
  return sticky != cudaSuccess ? sticky : fusedrnn::emulator::last_error.code;
}

const char* cudaGetErrorString(cudaError_t error) {
  using fusedrnn::emulator::last_failure;
  const bool known = error == last_failure.code && !last_failure.text.empty();
  return known ? last_failure.text.c_str() : fusedrnn::emulator::text_of(error);
}

const char* cudaGetErrorName(cudaError_t error) { return fusedrnn::emulator::name_of(error); }
