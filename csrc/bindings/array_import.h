// Arguments that are arrays: NumPy's natively, all others through DLPack, or on a CUDA device the
// CUDA Array Interface.
#pragma once

#include <pybind11/numpy.h>

#include "bindings/array_view.h"
#include "bindings/place.h"
#include "core/tensor.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn::bindings {

namespace py = pybind11;

// An array to read. Keeps alive what it refers to.
class InputArray {
 public:
  // None: the argument was not given. Where integers are expected, a sequence of them will do.
  // Without a place, in the memory of the CPU alone; with one, where the place is (which the first
  // array decides).
  InputArray(const Name& name, py::handle object, ElementKind kind, Place* place = nullptr);

  const Name& name() const { return name_; }
  // Null where the argument was not given.
  const DLTensor* tensor() const { return given_ ? &view_.tensor : nullptr; }

  // Copies what core cannot read as it lies; an array on a device with its own library. Only for
  // tensors that core has accepted with Layout::any, so that nobody makes it copy what does not fit
  // in memory.
  void make_readable();

  // Whether its owner does not want it written to.
  bool read_only() const { return read_only_; }

  // What holds the memory; None where there is none.
  const py::object& owner() const { return owner_; }

  // The elements as a NumPy array, without a copy; read-only where the producer says so.
  py::array as_numpy() const;

 private:
  void set(py::handle object, Place* place);
  void set_dlpack(py::handle object, DLDevice device, const Place* place);
  void copy();
  void copy_on_device();

  Name name_;
  ElementKind kind_;
  bool given_ = true;
  bool read_only_ = false;
  ArrayView view_;
  py::object owner_ = py::none();
  Place* place_ = nullptr;  // of an array on a device; else null
  py::object source_;       // that array
};

// Autograd's tensors refuse to be exported, but what they hold may be read.
py::object without_gradient(const Name& name, py::handle object);

// Throws for masked arrays, whose mask nobody would look at.
bool is_numpy(const Name& name, py::handle object);

}  // namespace fusedrnn::bindings
