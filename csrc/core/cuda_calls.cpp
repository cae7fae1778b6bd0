#include "core/cuda_calls.h"

#include <memory>
#include <optional>
#include <utility>

#include "core/args_fields.h"
#include "core/cuda_devices.h"
#include "core/cuda_library.h"
#include "core/tensor.h"

namespace fusedrnn {
namespace {

class KeptOnCuda final : public BackendTape {
 public:
  explicit KeptOnCuda(const CudaPlugin& plugin) : plugin_(plugin) {}
  ~KeptOnCuda() override {
    if (tape_ != nullptr) plugin_.free_tape(tape_);
  }
  KeptOnCuda(const KeptOnCuda&) = delete;
  KeptOnCuda& operator=(const KeptOnCuda&) = delete;

  const CudaTape* tape() const { return tape_; }
  CudaTape** slot() { return &tape_; }

 private:
  const CudaPlugin& plugin_;
  CudaTape* tape_ = nullptr;
};

// A mask with nothing left to work out: no offset, a stride on every axis.
class Mask {
 public:
  explicit Mask(const DLTensor* t) {
    if (t == nullptr) return;
    tensor_ = *t;
    tensor_->data = t->data == nullptr ? nullptr : data_of(*t);
    tensor_->byte_offset = 0;
    for (int i = 0; i < t->ndim; ++i) strides_[i] = stride_of(*t, i);
    tensor_->strides = strides_;
  }
  Mask(const Mask&) = delete;
  Mask& operator=(const Mask&) = delete;

  const DLTensor* tensor() const { return tensor_ ? &*tensor_ : nullptr; }

 private:
  std::optional<DLTensor> tensor_;
  int64_t strides_[2] = {};
};

}  // namespace

void forward_on_cuda(const fusedrnn_forward_args& args, const ForwardCall& call,
                     fusedrnn_tape* kept) {
  require_cuda_device("x", args.x->device);
  const CudaPlugin& plugin = cuda_plugin();
  const Mask lengths(args.lengths), resets(args.resets);
  const CudaMasks masks{lengths.tensor(), resets.tensor()};
  const CudaPlace place{args.x->device.device_id, stream_of(args), allocator_of(args)};
  if (kept == nullptr) {
    check_cuda(plugin, plugin.forward(&call, &masks, &place, nullptr));
    return;
  }
  auto tape = std::make_unique<KeptOnCuda>(plugin);
  check_cuda(plugin, plugin.forward(&call, &masks, &place, tape->slot()));
  kept->backend = std::move(tape);
  if (place.allocator != nullptr) kept->allocator = *place.allocator;
}

void backward_on_cuda(const fusedrnn_backward_args& args, const fusedrnn_tape& tape,
                      const BackwardCall& call) {
  const CudaPlugin& plugin = cuda_plugin();
  const CudaPlace place{tape.device.device_id, stream_of(args),
                        tape.allocator ? &*tape.allocator : nullptr};
  const auto& kept = static_cast<const KeptOnCuda&>(*tape.backend);
  check_cuda(plugin, plugin.backward(kept.tape(), &call, &place));
}

}  // namespace fusedrnn
