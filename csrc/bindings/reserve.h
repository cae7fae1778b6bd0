// The reserve of a tape: bytes of the caller's, or new ones: a NumPy array, or memory on a CUDA
// device that calls on any stream may use.
#pragma once

#include <pybind11/numpy.h>

#include <memory>
#include <utility>

#include "bindings/array_view.h"
#include "bindings/new_arrays.h"
#include "bindings/place.h"
#include "core/cuda_library.h"
#include "core/error.h"
#include "core/reserve.h"

namespace fusedrnn::bindings {

class Reserve {
 public:
  // New memory for a call of these sizes. `memory`: its allocator on a CUDA device, or null.
  Reserve(const Network& network, int64_t T, int64_t B, const Place& place,
          std::shared_ptr<CudaMemory> memory)
      : memory_(std::move(memory)) {
    if (!place.on_cuda()) {
      const auto bytes = static_cast<int64_t>(reserve_bytes(network, {kDLCPU, 0}, T, B));
      const py::array array = empty_array(py::dtype::of<uint8_t>(), {bytes});
      data_ = const_cast<void*>(array.data());
      bytes_ = static_cast<size_t>(bytes);
      array_ = array;
      return;
    }
    bytes_ = reserve_bytes(network, {kDLCUDA, place.device()}, T, B);
    const CudaPlugin& plugin = cuda_plugin();
    const CudaPlace here = cuda_place(place);
    const fusedrnn_status status = plugin.keep(bytes_, &here, &kept_, &data_);
    if (status != FUSEDRNN_OK && memory_) memory_->throw_on_failure(status, plugin.last_error());
    check_cuda(plugin, status);
  }

  // Bytes of the caller's, where x lies: on a CUDA device in the order of its library's stream.
  // `written`: whether a forward call writes them, or has left them before.
  Reserve(py::handle bytes, Place& place, bool written) {
    ArrayView view;
    array_ = view.read("reserve", bytes, ElementKind::boolean, &place);
    const DLTensor& t = view.tensor;
    if (t.dtype.code != kDLUInt || t.ndim != 1 || (t.shape[0] > 1 && t.strides[0] != 1)) {
      refuse_type("reserve", "a dense vector of uint8", "another array");
    }
    if (is_cuda(t.device) != place.on_cuda()) {
      refuse_type("reserve", "an array where x lies", "one elsewhere");
    }
    if (written && view.read_only) {
      refuse_value("reserve", "an array to write to", "a read-only one");
    }
    data_ = t.data;
    bytes_ = static_cast<size_t>(t.shape[0]);
    owner_ = view.owner;
  }

  ~Reserve() {
    if (kept_ != nullptr) cuda_plugin().free_kept(kept_);
  }
  Reserve(const Reserve&) = delete;
  Reserve& operator=(const Reserve&) = delete;

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  // None where it is new on a CUDA device.
  const py::object& array() const { return array_; }

  // Around each call that uses it, on the place's stream.
  void enter(const Place& place) const { order(&CudaPlugin::enter, place); }
  void leave(const Place& place) const { order(&CudaPlugin::leave, place); }

 private:
  CudaPlace cuda_place(const Place& place) const {
    return {place.device(), place.stream(), memory_ ? memory_->allocator() : nullptr};
  }

  template <class Step>
  void order(Step CudaPlugin::* step, const Place& place) const {
    if (kept_ == nullptr) return;
    const CudaPlace here = cuda_place(place);
    check_cuda(cuda_plugin(), (cuda_plugin().*step)(kept_, &here));
  }

  void* data_ = nullptr;
  size_t bytes_ = 0;
  py::object array_ = py::none();
  py::object owner_;  // of the caller's bytes
  std::shared_ptr<CudaMemory> memory_;
  CudaKept* kept_ = nullptr;
};

}  // namespace fusedrnn::bindings
