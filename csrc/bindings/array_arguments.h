// Python arguments that are arrays, to read and to write.
#pragma once

#include "bindings/array_view.h"
#include "bindings/place.h"
#include "core/problem.h"
#include "core/tensor.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn::bindings {

// An array to read. Keeps alive what it refers to.
class InputArray {
 public:
  // None: the argument was not given. Where integers are expected, a sequence of them will do.
  // Without a place, in the memory of the CPU alone; with one, where the place is (which the first
  // array decides).
  InputArray(const Name& name, py::handle object, ElementKind kind, Place* place = nullptr);

  // Null where the argument was not given.
  const DLTensor* tensor() const { return given_ ? &view_.tensor : nullptr; }

  // Copies what core cannot read as it lies; an array on a device with its own library. Only for
  // tensors that core has accepted with Layout::any, so that nobody makes it copy what does not fit
  // in memory.
  void make_readable();

  // From now on with an axis of one element more, before axis `axis`.
  void insert_axis(int axis) {
    view_.insert_axis(axis);
    inserted_ = axis;
  }

  // As NumPy's, without a copy; read-only where the producer says so.
  py::array as_numpy() const;

 private:
  bool is_readable() const;
  void copy_to_readable();

  Name name_;
  ElementKind kind_;
  bool given_;
  int inserted_ = -1;  // an axis that the array itself does not have
  ArrayView view_;
  Place* place_ = nullptr;  // of an array on a device; else null
  py::object source_;       // that array
};

// A result: an array that the caller gave, of any library that lends it to be written to, or where
// `object` is None a new one; of NumPy on the CPU, on a CUDA device of x's library.
class OutputArray {
 public:
  OutputArray(const Name& name, py::handle object, Dtype dtype, const Shape& shape,
              Place* place = nullptr);

  DLTensor* tensor() { return &view_.tensor; }
  const py::object& array() const { return array_; }
  // Its tensor has an axis of one element more from now on, before axis `axis`.
  void insert_axis(int axis) { view_.insert_axis(axis); }

 private:
  py::object array_;
  ArrayView view_;
};

// Where `result` is memory of the CUDA library's pool, a call's inputs live as long as it.
void keep_inputs(const py::object& result, const py::list& inputs);

}  // namespace fusedrnn::bindings
