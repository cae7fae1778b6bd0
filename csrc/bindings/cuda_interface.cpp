#include "bindings/cuda_interface.h"

#include <charconv>
#include <string>
#include <vector>

#include "bindings/arguments.h"
#include "core/cuda_library.h"
#include "core/error.h"
#include "core/tensor.h"

namespace fusedrnn::bindings {
namespace {

constexpr const char* kAttribute = "__cuda_array_interface__";

[[noreturn]] void refuse(const Name& name, const std::string& what, const std::string& got) {
  throw_type_error(expected(name, std::string("a ") + kAttribute + " with " + what, got));
}

// "<f4", "|b1", ...
DLDataType dtype_of(const Name& name, const std::string& text) {
  int bytes = 0;
  const char* end = text.data() + text.size();
  const bool sized = text.size() > 2 && std::from_chars(text.data() + 2, end, bytes).ptr == end;
  const char kind = text.size() > 1 ? text[1] : '\0';
  const auto known = std::string("biufc").find(kind);
  constexpr uint8_t kCodes[] = {kDLBool, kDLInt, kDLUInt, kDLFloat, kDLComplex};
  const bool native = text[0] != '>' || bytes == 1;
  if (!sized || known == std::string::npos || bytes < 1 || bytes > 16 || !native) {
    refuse(name, "a typestr of numbers in the machine's byte order", "'" + text + "'");
  }
  return {kCodes[known], static_cast<uint8_t>(bytes * 8), 1};
}

DLDevice device_of(const void* memory) {
  const CudaPlugin& plugin = cuda_plugin();
  int32_t device = -1;
  check_cuda(plugin, plugin.device_of(memory, &device));
  if (device < 0) return {kDLCPU, 0};
  return {kDLCUDA, device};
}

// None where the producer asks for no order.
void await_producer(const Name& name, py::handle stream, const Place& place) {
  if (stream.is_none()) return;
  const int64_t value = int_argument("stream", stream);
  if (value == 0) refuse(name, "a stream that is not 0, which could be either default", "0");
  const CudaPlugin& plugin = cuda_plugin();
  check_cuda(plugin, plugin.order(place.device(), stream_argument(stream), place.stream()));
}

std::vector<int64_t> integers(const Name& name, const py::object& object) {
  if (!PyTuple_Check(object.ptr())) refuse(name, "tuples of ints", type_name(object));
  std::vector<int64_t> values;
  for (const py::handle item : py::reinterpret_borrow<py::tuple>(object)) {
    values.push_back(int_argument(name, item));
  }
  return values;
}

}  // namespace

bool has_cuda_interface(py::handle object) { return py::hasattr(object, kAttribute); }

py::object view_cuda_interface(const Name& name, py::handle object, Place& place, ArrayView& view,
                               bool& read_only) {
  const py::object attribute = object.attr(kAttribute);
  if (!PyDict_Check(attribute.ptr())) refuse(name, "a dict", type_name(attribute));
  const auto interface = py::reinterpret_borrow<py::dict>(attribute);
  const auto get = [&](const char* key) -> py::object {
    if (!interface.contains(key)) return py::none();
    return py::reinterpret_borrow<py::object>(interface[key]);
  };
  if (!get("mask").is_none()) refuse(name, "no mask", type_name(get("mask")));

  std::vector<int64_t> shape = integers(name, get("shape"));
  const py::object data = get("data");
  if (!PyTuple_Check(data.ptr()) || py::len(data) != 2) refuse(name, "data", type_name(data));
  const auto address = reinterpret_cast<void*>(py::cast<uintptr_t>(data[py::int_(0)]));
  read_only = py::cast<bool>(data[py::int_(1)]);

  DLTensor tensor{};
  tensor.data = address;
  tensor.dtype = dtype_of(name, str_argument("typestr", get("typestr")));
  tensor.ndim = static_cast<int32_t>(shape.size());
  tensor.shape = shape.data();
  std::vector<int64_t> strides;
  if (!get("strides").is_none()) {
    strides = integers(name, get("strides"));
    if (strides.size() != shape.size()) refuse(name, "a stride an axis", "other strides");
    for (int64_t& stride : strides) {
      if (stride % item_size(tensor) != 0) refuse(name, "strides of whole elements", "others");
      stride /= item_size(tensor);
    }
    tensor.strides = strides.data();
  }
  // An array without elements has no address, and lies where the others are.
  tensor.device = address == nullptr && place.on_cuda() ? DLDevice{kDLCUDA, place.device()}
                                                        : device_of(address);
  place.admit(name, object, tensor.device);
  view.set(name, tensor);
  if (place.on_cuda()) await_producer(name, get("stream"), place);
  return py::reinterpret_borrow<py::object>(object);
}

}  // namespace fusedrnn::bindings
