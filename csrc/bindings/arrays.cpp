// Arrays for the Python layer: as_array, empty, LentArray.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arguments.h"
#include "bindings/array_arguments.h"
#include "bindings/new_arrays.h"
#include "bindings/numpy_types.h"
#include "bindings/register.h"
#include "core/cuda_library.h"
#include "core/error.h"
#include "core/tensor.h"

namespace fusedrnn::bindings {
namespace {

// A tuple of ints, or of ints and None for any extent.
Shape shape_argument(py::handle object, bool any_allowed) {
  if (!PyTuple_Check(object.ptr())) {
    refuse_type("shape", "a tuple", type_name(object));
  }
  const auto extents = py::reinterpret_borrow<py::tuple>(object);
  if (extents.size() > kMaxRank) {
    refuse_value("shape", "at most " + std::to_string(kMaxRank) + " dimensions", extents.size());
  }
  Shape shape{};
  for (const py::handle item : extents) {
    const int64_t extent = item.is_none() && any_allowed ? kAnyExtent : int_argument("shape", item);
    if (extent < 0 && extent != kAnyExtent) {
      refuse_value("shape", "extents of at least 0", extent);
    }
    shape.add(extent);
  }
  return shape;
}

// None: any.
void check_array(const Name& name, const DLTensor& t, py::handle shape_object,
                 py::handle dtype_object) {
  std::optional<Shape> shape;
  if (!shape_object.is_none()) shape = shape_argument(shape_object, true);
  std::optional<std::string> dtype;
  if (!dtype_object.is_none()) dtype = str_argument("dtype", dtype_object);
  check_tensor(name, t, dtype ? dtype->c_str() : nullptr, shape ? &*shape : nullptr);
}

py::array as_array(const char* name, py::handle object, py::handle shape, py::handle dtype) {
  const InputArray array(name, object, ElementKind::any);
  check_array(name, required(name, array.tensor()), shape, dtype);
  const py::handle type(reinterpret_cast<PyObject*>(numpy().PyArray_Type_));
  py::array numpy = array.as_numpy();
  if (py::type::handle_of(numpy).is(type)) return numpy;
  return type.attr("view")(numpy, type);  // not the subclass's own view()
}

// NumPy arrays that a step will write to.
void check_outputs(const py::dict& arrays) {
  std::vector<Footprint> written;
  for (const auto& [name, object] : arrays) {
    const char* text = PyUnicode_AsUTF8(name.ptr());  // lives as long as the dict
    if (text == nullptr) throw py::error_already_set();
    OutputArray output(text, object, Dtype::float32, {});
    check_dense(text, *output.tensor());
    written.emplace_back(text, *output.tensor());
  }
  check_apart(written, {});
}

// Nothing is ordered: no element is read.
void check_on_cuda(const char* name, py::handle object, py::handle shape, py::handle dtype,
                   int32_t device) {
  const DLDevice found = producer_device(name, object);
  check_device(name, found, {kDLCUDA, device}, "the layer");
  const LentTensor lent = import_dlpack(name, without_gradient(name, object), found);
  check_array(name, lent.tensor, shape, dtype);
}

py::array empty(py::handle shape_object, py::handle dtype_object) {
  const Shape shape = shape_argument(shape_object, false);
  const Dtype dtype = dtype_argument(dtype_object);
  TensorView view;
  view.view(nullptr, dtype_info(dtype).dlpack, shape);
  check_bytes("shape", view.tensor);
  return empty_array(numpy_dtype(dtype), shape);
}

// A DLPack producer, to be given to a library's from_dlpack.
class LentArray {
 public:
  // A NumPy array of any type that DLPack knows, bfloat16 among them, which NumPy does not export.
  explicit LentArray(const py::array& array) { view_.set("array", array, ElementKind::any); }

  // Memory on a CUDA device, for results of libraries that offer none of their own: JAX, and all
  // that are known through DLPack alone. From the CUDA library's own pool, which gets it back in
  // the order of `stream`, as all work on it is ordered.
  LentArray(py::handle shape_object, py::handle dtype_object, py::handle device_object,
            py::handle stream) {
    const Shape shape = shape_argument(shape_object, false);
    const Dtype dtype = dtype_argument(dtype_object);
    const DLDevice device{
        kDLCUDA, narrowed("device", "a device's number", int_argument("device", device_object))};
    stream_ = stream_argument(stream);
    DLTensor& tensor = view_.tensor;
    view_.view(nullptr, dtype_info(dtype).dlpack, shape);
    check_bytes("shape", tensor);
    tensor.device = device;
    const auto bytes = static_cast<size_t>(shape.count() * item_size(dtype));
    const CudaPlugin& plugin = cuda_plugin();
    check_cuda(plugin, plugin.allocate(device.device_id, bytes, stream_, &tensor.data));
    memory_ = {tensor.data, [&plugin, device, stream = stream_](void* memory) {
                 plugin.release(device.device_id, memory, stream);
               }};
  }

  // What fusedrnn._cuda_interface found of another library's memory on `device`, unless it has an
  // address that says where it is; strides in elements. Nobody waits for a stream that is None.
  LentArray(const std::string& name, uintptr_t address, std::vector<int64_t> shape,
            std::vector<int64_t> strides, const py::dtype& dtype, bool read_only, py::handle stream,
            int32_t device, py::object owner) {
    DLTensor tensor{};
    tensor.data = reinterpret_cast<void*>(address);
    tensor.ndim = static_cast<int32_t>(shape.size());
    tensor.dtype = dlpack_dtype("typestr", dtype, ElementKind::any);
    tensor.shape = shape.data();
    tensor.strides = strides.data();
    const CudaPlugin& plugin = cuda_plugin();
    if (address != 0) check_cuda(plugin, plugin.device_of(tensor.data, &device));
    tensor.device = device < 0 ? DLDevice{kDLCPU, 0} : DLDevice{kDLCUDA, device};
    view_.set(name.c_str(), {tensor, read_only, std::move(owner)});
    if (!stream.is_none()) stream_ = stream_argument(stream);
    is_ordered_ = !stream.is_none();
  }

  void keep(py::object inputs) { inputs_ = std::move(inputs); }

  // Arguments as the array API standard has them: the consumer's stream is made to wait, and
  // nothing is copied. Each capsule keeps the array alive by itself.
  static py::object dlpack(py::object self, py::handle stream, py::handle max_version,
                           py::handle device, py::handle copy) {
    const auto& array = py::cast<const LentArray&>(self);
    const DLTensor& tensor = array.view_.tensor;
    const bool on_cuda = is_cuda(tensor.device);
    if (!on_cuda && !stream.is_none()) {
      throw py::buffer_error("stream: expected None for an array on the CPU");
    }
    if (!device.is_none() && !device.equal(array.dlpack_device())) {
      const std::string where = on_cuda ? device_name(tensor.device) : "the CPU";
      throw py::buffer_error("dl_device: expected " + where + ", where the array lies");
    }
    if (copy.ptr() == Py_True) throw py::buffer_error("copy: expected None or False");
    void* consumer = stream_argument(stream);
    if (on_cuda && array.is_ordered_ && reinterpret_cast<intptr_t>(consumer) != kNoOrder) {
      const CudaPlugin& plugin = cuda_plugin();
      check_cuda(plugin, plugin.order(tensor.device.device_id, array.stream_, consumer));
    }
    return lend({tensor, array.view_.read_only, std::move(self)}, max_version);
  }

  py::tuple dlpack_device() const {
    const DLDevice& device = view_.tensor.device;
    return py::make_tuple(static_cast<int32_t>(device.device_type), device.device_id);
  }

 private:
  ArrayView view_;
  std::shared_ptr<void> memory_;  // of a CUDA device
  void* stream_ = nullptr;
  bool is_ordered_ = true;  // whether consumers wait for that stream
  py::object inputs_ = py::none();
};

}  // namespace

void keep_inputs(const py::object& result, const py::list& inputs) {
  if (py::isinstance<LentArray>(result)) py::cast<LentArray&>(result).keep(inputs);
}

void register_arrays(py::module_& m) {
  m.def("as_array", &as_array, py::arg("name").none(false), py::arg("obj"),
        py::arg("shape") = py::none(), py::arg("dtype") = py::none(),
        "obj as a NumPy array, without a copy; read-only where its owner lends it so. Of a tensor "
        "that PyTorch negates as it is read, a copy.");
  m.def("check_on_cuda", &check_on_cuda, py::arg("name").none(false), py::arg("obj"),
        py::arg("shape"), py::arg("dtype"), py::arg("device"),
        "Throws where obj is no such array on that CUDA device, the device of a layer.");
  m.def("check_outputs", &check_outputs, py::arg("arrays"),
        "Throws where arrays, by name, cannot be written to or share memory with one another.");
  m.def("empty", &empty, py::arg("shape"), py::arg("dtype"),
        "An uninitialised array, 64-byte aligned; of bfloat16 one of a single field of its bits.");
  py::class_<LentArray>(m, "LentArray", py::is_final(),
                        "A DLPack producer: a NumPy array of types that NumPy does not export, or "
                        "memory on a CUDA device.")
      .def(py::init<const py::array&>(), py::arg("array"))
      .def(py::init<py::handle, py::handle, py::handle, py::handle>(), py::arg("shape"),
           py::arg("dtype"), py::arg("device"), py::arg("stream"))
      .def(py::init<const std::string&, uintptr_t, std::vector<int64_t>, std::vector<int64_t>,
                    const py::dtype&, bool, py::handle, int32_t, py::object>(),
           py::arg("name"), py::arg("address"), py::arg("shape"), py::arg("strides"),
           py::arg("dtype"), py::arg("read_only"), py::arg("stream"), py::arg("device"),
           py::arg("owner"))
      .def("__dlpack__", &LentArray::dlpack, py::kw_only(), py::arg("stream") = py::none(),
           py::arg("max_version") = py::none(), py::arg("dl_device") = py::none(),
           py::arg("copy") = py::none())
      .def("__dlpack_device__", &LentArray::dlpack_device);
}

}  // namespace fusedrnn::bindings
