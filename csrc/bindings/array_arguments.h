// Python arguments that are arrays: NumPy's natively, all others through DLPack, or on a CUDA
// device the CUDA Array Interface.
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>

#include "bindings/dlpack.h"
#include "bindings/place.h"
#include "core/problem.h"
#include "core/tensor.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn::bindings {

// A DLTensor over somebody else's array, whose memory it keeps alive. Shape and strides are copied:
// another thread may assign array.shape while a kernel runs without the GIL. Not movable, because
// `tensor` points into the struct.
struct ArrayView {
  DLTensor tensor{};
  int64_t shape[kMaxRank];
  int64_t strides[kMaxRank];  // in elements, as far as whole_strides says they can be
  bool whole_strides = true;  // a field of a packed struct has any number of bytes
  bool read_only = false;     // whether its owner does not want it written to
  py::object owner = py::none();

  ArrayView() = default;
  ArrayView(const ArrayView&) = delete;
  ArrayView& operator=(const ArrayView&) = delete;

  void set(const Name& name, const py::array& array, ElementKind kind);
  void set(const Name& name, LentTensor lent);

  // A new axis of one element before axis `axis`, and back.
  void insert_axis(int axis);
  void remove_axis(int axis);

  // Of any library; `place` as for InputArray. Returns the array whose memory it is, which is not
  // the one that was given where that one is watched by autograd.
  py::object read(const Name& name, py::handle object, ElementKind kind, Place* place);

 private:
  // What lies on the CPU, of types with DLPack's table. False where `object` is none.
  bool read_by_table(const Name& name, py::handle object);
  // What CUDA arrays without __dlpack__ have. False where `object` does not have it either.
  bool read_cuda_interface(const Name& name, py::handle object, Place& place);
};

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

  // From now on with an axis of one element more, before axis `axis`.
  void insert_axis(int axis) {
    view_.insert_axis(axis);
    inserted_ = axis;
  }
  bool has_inserted_axis() const { return inserted_ >= 0; }

  // What holds the memory; None where there is none.
  const py::object& owner() const { return view_.owner; }

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
              const Place* place = nullptr);

  DLTensor* tensor() { return &view_.tensor; }
  const py::object& array() const { return array_; }
  // Its tensor has an axis of one element more from now on, before axis `axis`.
  void insert_axis(int axis) { view_.insert_axis(axis); }

 private:
  py::object array_;
  ArrayView view_;
};

// An uninitialised NumPy array, 64-byte aligned. The bytes of `shape` fit in int64.
py::array empty_array(const py::dtype& dtype, const Shape& shape);

// Whether its elements lie aligned and in the order of its axes.
bool is_dense(const py::array& array);

// Autograd's tensors refuse to be exported, but what they hold may be read.
py::object without_gradient(const Name& name, py::handle object);

// Of a call whose arrays belong to a library that does not know of the work that reads the inputs:
// where `result` is memory of the CUDA library's pool they live as long as anybody holds it.
void keep_inputs(const py::object& result, const py::tuple& inputs);

}  // namespace fusedrnn::bindings
