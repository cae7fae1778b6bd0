#include "core/args_fields.h"

#include <cstddef>
#include <initializer_list>
#include <string>

#include "core/error.h"
#include "core/tensor_checks.h"

namespace fusedrnn {
namespace {

// The sizes of older versions. What is `reserved` now was padding in them: it held anything.
constexpr size_t kForwardWithoutCompute = offsetof(fusedrnn_forward_args, compute);
constexpr size_t kForwardWithoutStream = offsetof(fusedrnn_forward_args, stream);
constexpr size_t kBackwardWithoutStream = offsetof(fusedrnn_backward_args, stream);

void check_size(const char* name, size_t size, std::initializer_list<size_t> known) {
  for (const size_t one : known) {
    if (size == one) return;
  }
  throw_value_error(expected(name, "size = " + std::to_string(*known.begin()) + " (its sizeof)",
                             std::to_string(size)));
}

void check_reserved(int32_t reserved) {
  if (reserved != 0) throw_value_error(expected("reserved", "0", std::to_string(reserved)));
}

template <class Args>
bool is_current(const Args& args) {
  return args.size == sizeof(Args);
}

}  // namespace

void check_fields(const fusedrnn_forward_args& args) {
  check_size("fusedrnn_forward_args", args.size,
             {sizeof args, kForwardWithoutStream, kForwardWithoutCompute});
  if (is_current(args)) check_reserved(args.reserved);
}

void check_fields(const fusedrnn_backward_args& args) {
  check_size("fusedrnn_backward_args", args.size, {sizeof args, kBackwardWithoutStream});
  if (is_current(args)) check_reserved(args.reserved);
}

int32_t compute_of(const fusedrnn_forward_args& args) {
  return args.size == kForwardWithoutCompute ? int32_t{FUSEDRNN_COMPUTE_SAME} : args.compute;
}

void* stream_of(const fusedrnn_forward_args& args) {
  return is_current(args) ? args.stream : nullptr;
}

void* stream_of(const fusedrnn_backward_args& args) {
  return is_current(args) ? args.stream : nullptr;
}

const fusedrnn_allocator* allocator_of(const fusedrnn_forward_args& args) {
  return is_current(args) ? args.allocator : nullptr;
}

}  // namespace fusedrnn
