#include "bindings/device_array.h"

#include <utility>

#include "bindings/arguments.h"
#include "bindings/dlpack_lease.h"
#include "bindings/place.h"
#include "bindings/register.h"
#include "core/cuda_library.h"
#include "core/error.h"
#include "core/tensor.h"

namespace fusedrnn::bindings {

class DeviceBlock {
 public:
  DeviceBlock(int32_t device, size_t bytes, void* stream) : device_(device), stream_(stream) {
    check_cuda(plugin_, plugin_.allocate(device, bytes, stream, &memory_));
  }
  ~DeviceBlock() { plugin_.release(device_, memory_, stream_); }
  DeviceBlock(const DeviceBlock&) = delete;
  DeviceBlock& operator=(const DeviceBlock&) = delete;

  void* memory() const { return memory_; }
  int32_t device() const { return device_; }

  // Work on `consumer` waits for what has been put on the block's stream.
  void await(void* consumer) const {
    check_cuda(plugin_, plugin_.order(device_, stream_, consumer));
  }

 private:
  const CudaPlugin& plugin_ = cuda_plugin();
  int32_t device_;
  void* stream_;
  void* memory_ = nullptr;
};

namespace {

constexpr int64_t kNoOrder = -1;  // a consumer's stream: it takes care of the order itself

DLTensor tensor_over(void* memory, int32_t device, Dtype dtype, std::vector<int64_t>& shape) {
  DLTensor tensor{};
  tensor.data = memory;
  tensor.device = {kDLCUDA, device};
  tensor.dtype = dtype_info(dtype).dlpack;
  tensor.ndim = static_cast<int32_t>(shape.size());
  tensor.shape = shape.data();
  return tensor;
}

}  // namespace

DeviceArray::DeviceArray(py::handle shape, py::handle dtype, py::handle device, py::handle stream) {
  dtype_ = dtype_argument(dtype);
  auto bytes = static_cast<size_t>(item_size(dtype_));
  for (const py::handle extent : py::cast<py::tuple>(shape)) {
    shape_.push_back(int_argument("shape", extent));
    bytes *= static_cast<size_t>(shape_.back());
  }
  const auto id = static_cast<int32_t>(int_argument("device", device));
  block_ = std::make_shared<DeviceBlock>(id, bytes, stream_argument(stream));
}

py::object DeviceArray::dlpack(py::handle self, py::handle stream, py::handle max_version,
                               py::handle device, py::handle copy) {
  auto& array = py::cast<DeviceArray&>(self);
  if (!device.is_none() && !device.equal(array.dlpack_device())) {
    throw py::buffer_error("dl_device: expected the device where the array lies");
  }
  if (copy.ptr() == Py_True) throw py::buffer_error("copy: expected None or False");
  void* consumer = stream_argument(stream);
  if (reinterpret_cast<intptr_t>(consumer) != kNoOrder) array.block_->await(consumer);
  const DLTensor tensor =
      tensor_over(array.block_->memory(), array.block_->device(), array.dtype_, array.shape_);
  return lend(tensor, py::reinterpret_borrow<py::object>(self), false, max_version);
}

py::tuple DeviceArray::dlpack_device() const {
  return py::make_tuple(int32_t{kDLCUDA}, block_->device());
}

void keep_inputs(const py::object& result, const py::tuple& inputs) {
  if (py::isinstance<DeviceArray>(result)) py::cast<DeviceArray&>(result).keep(inputs);
}

void register_device_array(py::module_& m) {
  py::class_<DeviceArray>(m, "DeviceArray", py::is_final(),
                          "Memory on a CUDA device as a DLPack producer.")
      .def(py::init<py::handle, py::handle, py::handle, py::handle>(), py::arg("shape"),
           py::arg("dtype"), py::arg("device"), py::arg("stream"))
      .def("__dlpack__", &DeviceArray::dlpack, py::kw_only(), py::arg("stream") = py::none(),
           py::arg("max_version") = py::none(), py::arg("dl_device") = py::none(),
           py::arg("copy") = py::none())
      .def("__dlpack_device__", &DeviceArray::dlpack_device);
}

}  // namespace fusedrnn::bindings
