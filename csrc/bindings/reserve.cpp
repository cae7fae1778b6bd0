#include "bindings/reserve.h"

#include <utility>

#include "bindings/array_export.h"
#include "core/cuda_library.h"
#include "core/error.h"
#include "core/reserve.h"

namespace fusedrnn::bindings {

Reserve::Reserve(const Network& network, int64_t T, int64_t B, const Place& place,
                 std::shared_ptr<CudaMemory> memory)
    : memory_(std::move(memory)) {
  if (!place.on_cuda()) {
    bytes_ = reserve_bytes(network, {kDLCPU, 0}, T, B);
    const py::array array = empty_array(py::dtype::of<uint8_t>(), {static_cast<int64_t>(bytes_)});
    data_ = const_cast<void*>(array.data());
    array_ = array;
    return;
  }
  bytes_ = reserve_bytes(network, {kDLCUDA, place.device()}, T, B);
  const CudaPlugin& plugin = cuda_plugin();
  const CudaPlace on = here(place);
  const fusedrnn_status status = plugin.keep(bytes_, &on, &kept_, &data_);
  if (status != FUSEDRNN_OK && memory_) memory_->throw_on_failure(status, plugin.last_error());
  check_cuda(plugin, status);
}

Reserve::Reserve(py::array bytes)
    : bytes_(static_cast<size_t>(bytes.nbytes())), array_(std::move(bytes)) {
  const auto array = py::reinterpret_borrow<py::array>(array_);
  if (!array.dtype().is(py::dtype::of<uint8_t>()) || array.ndim() != 1 ||
      (array.flags() & py::array::c_style) == 0) {
    throw_type_error(expected("reserve", "a dense vector of uint8", "another array"));
  }
  data_ = const_cast<void*>(array.data());
}

Reserve::~Reserve() {
  if (kept_ != nullptr) cuda_plugin().free_kept(kept_);
}

CudaPlace Reserve::here(const Place& place) const {
  return {place.device(), place.stream(), memory_ ? memory_->allocator() : nullptr};
}

void Reserve::order(fusedrnn_status (*CudaPlugin::*step)(CudaKept*, const CudaPlace*),
                    const Place& place) const {
  if (kept_ == nullptr) return;
  const CudaPlace on = here(place);
  check_cuda(cuda_plugin(), (cuda_plugin().*step)(kept_, &on));
}

}  // namespace fusedrnn::bindings
