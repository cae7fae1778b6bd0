// The C ABI: passes with weights of the call, and what concerns the whole library.
#include <memory>
#include <utility>
#include <vector>

#include "core/backend.h"
#include "core/cuda_calls.h"
#include "core/device.h"
#include "core/empty.h"
#include "core/flags.h"
#include "core/guarded.h"
#include "core/system.h"
#include "core/tape.h"
#include "core/validate.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn {
namespace {

void forward_on_cpu(const fusedrnn_forward_args& args, ForwardCall& call, fusedrnn_tape* kept) {
  std::vector<uint8_t> flags = step_flags(call.problem, args.lengths, args.resets);
  call.flags = flags.empty() ? nullptr : flags.data();
  if (is_empty(call.problem)) {
    forward_empty(call);
  } else {
    cpu_backend().forward(call, kept == nullptr ? nullptr : &kept->backend);
  }
  if (kept != nullptr) kept->flags = std::move(flags);
}

void forward(const fusedrnn_forward_args& args, fusedrnn_tape** tape) {
  ForwardCall call = check_forward(args);
  auto kept = tape == nullptr ? nullptr : std::make_unique<fusedrnn_tape>();
  if (is_cuda(args.x->device)) {
    forward_on_cuda(args, call, kept.get());
  } else {
    forward_on_cpu(args, call, kept.get());
  }
  if (!kept) return;
  kept->call.problem = call.problem;
  kept->call.x = call.x;
  kept->call.w_ih = call.w_ih;
  kept->call.w_hh = call.w_hh;
  kept->device = args.x->device;
  *tape = kept.release();
}

void backward_on_cpu(const fusedrnn_tape& tape, BackwardCall& call) {
  call.flags = tape.flags.empty() ? nullptr : tape.flags.data();
  if (is_empty(call.problem)) {
    backward_empty(call);
  } else {
    cpu_backend().backward(*tape.backend, call);
  }
}

void backward(const fusedrnn_backward_args& args) {
  const fusedrnn_tape& tape = not_null("tape", args.tape);
  BackwardCall call = check_backward(args, tape);
  if (is_cuda(tape.device)) {
    backward_on_cuda(args, tape, call);
  } else {
    backward_on_cpu(tape, call);
  }
}

}  // namespace
}  // namespace fusedrnn

extern "C" {

fusedrnn_status fusedrnn_forward(const fusedrnn_forward_args* args, fusedrnn_tape** tape) {
  return fusedrnn::guarded([&] { fusedrnn::forward(fusedrnn::not_null("args", args), tape); });
}

fusedrnn_status fusedrnn_backward(const fusedrnn_backward_args* args) {
  return fusedrnn::guarded([&] { fusedrnn::backward(fusedrnn::not_null("args", args)); });
}

void fusedrnn_tape_free(fusedrnn_tape* tape) { delete tape; }

const char* fusedrnn_last_error(void) { return fusedrnn::last_error(); }

const char* fusedrnn_version(void) { return FUSEDRNN_VERSION; }

int32_t fusedrnn_abi_version(void) { return FUSEDRNN_ABI_VERSION; }

fusedrnn_status fusedrnn_set_num_threads(int32_t n) {
  return fusedrnn::guarded([&] { fusedrnn::set_num_threads(n); });
}

int32_t fusedrnn_get_num_threads(void) {
  int32_t n = 0;
  fusedrnn::guarded([&] { n = fusedrnn::get_num_threads(); });
  return n;
}

}  // extern "C"
