// The CUDA Array Interface, version 3: how arrays without __dlpack__ show their memory.
#include <charconv>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arguments.h"
#include "bindings/array_view.h"
#include "bindings/numpy_types.h"
#include "core/cuda_library.h"
#include "core/error.h"
#include "core/tensor.h"

namespace fusedrnn::bindings {
namespace {

constexpr const char* kAttribute = "__cuda_array_interface__";

[[noreturn]] void refuse(const Name& name, const std::string& what, const std::string& got) {
  refuse_type(name, std::string("a ") + kAttribute + " with " + what, got);
}

// "<f4", "|b1", ...
DLDataType dtype_of(const Name& name, const std::string& text) {
  int bytes = 0;
  const char* end = text.data() + text.size();
  const bool sized = text.size() > 2 && std::from_chars(text.data() + 2, end, bytes).ptr == end;
  const int code = sized ? dlpack_code(text[1]) : -1;
  const bool native = text[0] != '>' || bytes == 1;
  if (code < 0 || bytes < 1 || bytes > 16 || !native) {
    refuse(name, "a typestr of numbers in the machine's byte order", "'" + text + "'");
  }
  return {static_cast<uint8_t>(code), static_cast<uint8_t>(bytes * 8), 1};
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

// Makes the stream of `place`, which it may decide, wait for the stream that the array was made on.
bool ArrayView::read_cuda_interface(const Name& name, py::handle object, Place& place) {
  if (!py::hasattr(object, kAttribute)) return false;
  const py::object interface = object.attr(kAttribute);
  if (!PyDict_Check(interface.ptr())) refuse(name, "a dict", type_name(interface));
  const auto get = [&](const char* key) -> py::object { return interface.attr("get")(key); };
  if (!get("mask").is_none()) refuse(name, "no mask", type_name(get("mask")));

  std::vector<int64_t> extents = integers(name, get("shape"));
  const py::object data = get("data");
  if (!PyTuple_Check(data.ptr()) || py::len(data) != 2) refuse(name, "data", type_name(data));
  const auto [address, is_read_only] = py::cast<std::pair<uintptr_t, bool>>(data);

  DLTensor described{};
  described.data = reinterpret_cast<void*>(address);
  described.dtype = dtype_of(name, str_argument("typestr", get("typestr")));
  described.ndim = static_cast<int32_t>(extents.size());
  described.shape = extents.data();
  std::vector<int64_t> steps;
  if (!get("strides").is_none()) {
    steps = integers(name, get("strides"));
    if (steps.size() != extents.size()) refuse(name, "a stride an axis", "other strides");
    for (int64_t& step : steps) {
      if (step % item_size(described) != 0) refuse(name, "strides of whole elements", "others");
      step /= item_size(described);
    }
    described.strides = steps.data();
  }
  const CudaPlugin& plugin = cuda_plugin();
  int32_t device = -1;
  check_cuda(plugin, plugin.device_of(described.data, &device));
  // An array without elements has no address, and lies where the others are.
  if (address == 0 && place.on_cuda()) device = place.device();
  described.device = device < 0 ? DLDevice{kDLCPU, 0} : DLDevice{kDLCUDA, device};
  place.admit(name, object, described.device);
  set(name, {described, is_read_only, py::reinterpret_borrow<py::object>(object)});
  const py::object stream = get("stream");
  if (!place.on_cuda() || stream.is_none()) return true;  // None: the producer asks for no order
  if (int_argument("stream", stream) == 0) {
    refuse(name, "a stream that is not 0, which could be either default", "0");
  }
  check_cuda(plugin, plugin.order(place.device(), stream_argument(stream), place.stream()));
  return true;
}

}  // namespace fusedrnn::bindings
