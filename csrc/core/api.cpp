// The C ABI: checks, the choice of the backend, exceptions turned into a status.
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "core/backend.h"
#include "core/cell_info.h"
#include "core/error.h"
#include "core/flags.h"
#include "core/system.h"
#include "core/tape.h"
#include "core/tensor.h"
#include "core/validate.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn {
namespace {

// The message of this thread's last failure. Where there is no memory for a message, a literal.
struct LastError {
  std::string text;
  const char* message = "";
};
thread_local LastError last_error;

fusedrnn_status fail(fusedrnn_status status, const char* message) noexcept {
  try {
    last_error.text = message;
    last_error.message = last_error.text.c_str();
  } catch (...) {
    last_error.message = "out of memory";
  }
  return status;
}

template <class Body>
fusedrnn_status guarded(const Body& body) noexcept {
  try {
    body();
    return FUSEDRNN_OK;
  } catch (const Error& error) {
    return fail(error.status(), error.what());
  } catch (const std::bad_alloc&) {
    return fail(FUSEDRNN_OUT_OF_MEMORY, "out of memory");
  } catch (const std::length_error&) {
    return fail(FUSEDRNN_OUT_OF_MEMORY, "out of memory");
  } catch (const std::exception& error) {
    return fail(FUSEDRNN_INTERNAL, error.what());
  } catch (...) {
    return fail(FUSEDRNN_INTERNAL, "an exception of an unknown type");
  }
}

template <class T>
const T& not_null(const char* name, const T* p) {
  if (p == nullptr) throw_value_error(std::string(name) + ": expected an address, got null");
  return *p;
}

// What a call without steps or without sequences leaves to do; engines never see one.
bool is_empty(const Problem& p) { return p.T == 0 || p.B == 0; }

void pass_states(const Problem& p, const Matrix* from, const Matrix* to) {
  const int64_t item = item_size(p.dtype);
  const size_t row_bytes = static_cast<size_t>(p.H * item);
  for (int s = 0; s < kMaxStates; ++s) {
    if (to[s].data == nullptr) continue;
    for (int64_t b = 0; b < p.B; ++b) {
      char* target = static_cast<char*>(to[s].data) + b * to[s].stride * item;
      if (from[s].data == nullptr) {
        std::memset(target, 0, row_bytes);
      } else {
        const char* source = static_cast<const char*>(from[s].data) + b * from[s].stride * item;
        std::memmove(target, source, row_bytes);  // memory that is its own source is no error
      }
    }
  }
}

void fill_zero(const Matrix& m, int64_t rows, int64_t n, int64_t item) {
  if (m.data == nullptr) return;
  for (int64_t i = 0; i < rows; ++i) {
    std::memset(static_cast<char*>(m.data) + i * m.stride * item, 0, static_cast<size_t>(n * item));
  }
}

void forward_empty(const ForwardCall& call) {
  pass_states(call.problem, call.state_0, call.state_n);
}

void backward_empty(const BackwardCall& call, int64_t rows) {
  const Problem& p = call.problem;
  const int64_t item = item_size(p.dtype);
  pass_states(p, call.dstate_n, call.dstate_0);
  fill_zero(call.dw_ih, rows, p.I, item);
  fill_zero(call.dw_hh, rows, p.H, item);
  fill_zero({call.db_ih, rows}, 1, rows, item);
  fill_zero({call.db_hh, rows}, 1, rows, item);
}

void forward(const fusedrnn_forward_args& args, fusedrnn_tape** tape) {
  ForwardCall call = check_forward(args);
  std::vector<uint8_t> flags = step_flags(call.problem, args.lengths, args.resets);
  call.flags = flags.empty() ? nullptr : flags.data();
  auto kept = tape == nullptr ? nullptr : std::make_unique<fusedrnn_tape>();
  if (is_empty(call.problem)) {
    forward_empty(call);
  } else {
    cpu_backend().forward(call, kept ? &kept->backend : nullptr);
  }
  if (!kept) return;
  kept->call.problem = call.problem;
  kept->call.x = call.x;
  kept->call.w_ih = call.w_ih;
  kept->call.w_hh = call.w_hh;
  kept->flags = std::move(flags);
  *tape = kept.release();
}

void backward(const fusedrnn_backward_args& args) {
  const fusedrnn_tape& tape = not_null("tape", args.tape);
  BackwardCall call = check_backward(args, tape.call);
  call.flags = tape.flags.empty() ? nullptr : tape.flags.data();
  if (is_empty(call.problem)) {
    backward_empty(call, find_cell(call.problem.cell)->gates * call.problem.H);
  } else {
    cpu_backend().backward(*tape.backend, call);
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

const char* fusedrnn_last_error(void) { return fusedrnn::last_error.message; }

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
