#include "bindings/place.h"

#include <pybind11/gil_safe_call_once.h>

#include "bindings/arguments.h"
#include "core/cuda_library.h"
#include "core/error.h"
#include "core/tensor.h"

namespace fusedrnn::bindings {
namespace {

intptr_t current_stream(const py::object& kind, int32_t device) {
  const py::object stream = kind.attr("current_stream")(device);
  return static_cast<intptr_t>(int_argument("stream", stream));
}

}  // namespace

void Place::admit_device(const Name& name, py::handle object, DLDevice device) {
  if (is_host(device)) return;
  if (settled_) return check_device(name, device, device_, "x");
  check_usable_device(name, device);
  require_cuda_device(name, device);
  kind_ = cuda_kind_of(object);
  device_ = device;
  stream_ = current_stream(kind_, device.device_id);
}

Place Place::now() const {
  Place place = *this;
  if (on_cuda()) place.stream_ = current_stream(kind_, device());
  return place;
}

py::object Place::empty(Dtype dtype, const Shape& shape) const {
  py::tuple extents(shape.rank());
  for (int i = 0; i < shape.rank(); ++i)
    extents[static_cast<size_t>(i)] = py::int_(shape.begin()[i]);
  return kind_.attr("empty")(extents, dtype_name(dtype), device());
}

int64_t dlpack_stream(const void* stream) {
  const auto value = static_cast<int64_t>(reinterpret_cast<intptr_t>(stream));
  return value == 0 ? 1 : value;
}

void* stream_argument(py::handle object) {
  if (object.is_none()) return nullptr;
  return reinterpret_cast<void*>(static_cast<intptr_t>(int_argument("stream", object)));
}

py::object cuda_kind_of(py::handle array) {
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<py::object> storage;
  const py::object& kind_of =
      storage
          .call_once_and_store_result([] {
            return py::object(py::module_::import("fusedrnn.cuda_arrays").attr("kind_of"));
          })
          .get_stored();
  return kind_of(array);
}

}  // namespace fusedrnn::bindings
