// The step of plain NumPy arrays, without what a call through pybind11 costs: for a small cell that
// is several times the step itself. So this is a builtin function that gets its arguments as a C
// array, reads NumPy's structs instead of asking for attributes, and does nothing but recognise
// arrays that can be used as they lie. Whatever else comes it leaves to FrozenStack.step, which
// does the same with any array and finds the words for wrong ones.
#include <pybind11/numpy.h>

#include <exception>
#include <memory>
#include <new>
#include <utility>

#include "bindings/errors.h"
#include "bindings/frozen.h"
#include "bindings/numpy_types.h"
#include "bindings/released_gil.h"
#include "core/error.h"
#include "core/tensor.h"

namespace fusedrnn::bindings {
namespace {

using NumPy = py::detail::npy_api;

constexpr const char* kCapsuleName = "fusedrnn.fast_step";
constexpr int kReadable = NumPy::NPY_ARRAY_C_CONTIGUOUS_ | NumPy::NPY_ARRAY_ALIGNED_;
constexpr int kWritable = kReadable | NumPy::NPY_ARRAY_WRITEABLE_;

// Owns a reference, or is empty.
struct Reference {
  PyObject* object = nullptr;

  Reference() = default;
  explicit Reference(PyObject* stolen) : object(stolen) {}
  ~Reference() { Py_XDECREF(object); }
  Reference(const Reference&) = delete;
  Reference& operator=(const Reference&) = delete;
  PyObject* release() { return std::exchange(object, nullptr); }
};

// The bytes of a dense array.
struct Bytes {
  char* data = nullptr;
  size_t size = 0;

  bool apart_from(const Bytes& other) const {
    return data + size <= other.data || other.data + other.size <= data;
  }
};

class FastStep {
 public:
  explicit FastStep(std::shared_ptr<const FrozenStack> stack)
      : stack_(std::move(stack)),
        numpy_(NumPy::get()),
        dtype_(numpy_dtype(stack_->dtype())),
        type_num_(dtype_.num()),
        item_(item_size(stack_->dtype())),
        states_(stack_->states()),
        I_(stack_->input_size()),
        H_(stack_->hidden_size()),
        L_(stack_->num_layers()) {}

  // A new reference to (y, state), or to None where the arguments are not what this knows; null
  // with an exception set where they are and the step fails.
  PyObject* run(PyObject* x, PyObject* state, PyObject* out) const {
    Call call;
    if (dtype_.kind() == 'V') Py_RETURN_NONE;  // a stand-in for a type that NumPy does not have
    if (!read_input(x, call) || !read_state(state, call)) Py_RETURN_NONE;
    if (out == Py_None) return run_into_new_arrays(call);
    if (!read_out(out, call)) Py_RETURN_NONE;
    if (!execute(call)) return nullptr;
    Py_INCREF(out);
    return out;
  }

 private:
  struct Call {
    py::ssize_t B = 0;
    Bytes x, y, prev[kMaxStates], next[kMaxStates];
  };

  // Whether `object` is an array of our dtype, exactly of NumPy's type (a subclass may mean
  // something else by its elements), with these flags and this shape.
  bool is_plain(PyObject* object, int flags, int ndim) const {
    if (Py_TYPE(object) != numpy_.PyArray_Type_) return false;
    const auto* array = py::detail::array_proxy(object);
    if (array->nd != ndim || (array->flags & flags) != flags) return false;
    const auto* dtype = py::detail::array_descriptor_proxy(array->descr);
    return array->descr == dtype_.ptr() ||
           (dtype->type_num == type_num_ && dtype->byteorder == '=');
  }

  bool read_input(PyObject* x, Call& call) const {
    if (!is_plain(x, kReadable, 2)) return false;
    const auto* array = py::detail::array_proxy(x);
    if (array->dimensions[1] != I_) return false;
    call.B = array->dimensions[0];
    call.x = {array->data, static_cast<size_t>(call.B * I_ * item_)};
    return true;
  }

  bool read_rows(PyObject* object, int flags, py::ssize_t B, Bytes& bytes) const {
    if (!is_plain(object, flags, 3)) return false;
    const auto* array = py::detail::array_proxy(object);
    const py::ssize_t* n = array->dimensions;
    if (n[0] != L_ || n[1] != B || n[2] != H_) return false;
    bytes = {array->data, state_bytes(B)};
    return true;
  }

  // A tuple cannot change while the GIL is released; a list would have to be copied.
  static bool is_pair(PyObject* object) {
    return PyTuple_CheckExact(object) && PyTuple_GET_SIZE(object) == 2;
  }

  bool read_state(PyObject* state, Call& call) const {
    if (state == Py_None) return true;
    if (states_ == 1) return read_rows(state, kReadable, call.B, call.prev[0]);
    if (!is_pair(state)) return false;
    for (int s = 0; s < states_; ++s) {
      PyObject* part = PyTuple_GET_ITEM(state, s);
      if (part != Py_None && !read_rows(part, kReadable, call.B, call.prev[s])) return false;
    }
    return true;
  }

  bool read_out(PyObject* out, Call& call) const {
    if (!is_pair(out)) return false;
    PyObject* y = PyTuple_GET_ITEM(out, 0);
    PyObject* state = PyTuple_GET_ITEM(out, 1);
    if (!is_plain(y, kWritable, 2)) return false;
    const auto* array = py::detail::array_proxy(y);
    if (array->dimensions[0] != call.B || array->dimensions[1] != H_) return false;
    call.y = {array->data, output_bytes(call.B)};
    if (states_ == 1) return read_rows(state, kWritable, call.B, call.next[0]) && may_write(call);
    if (!is_pair(state)) return false;
    for (int s = 0; s < states_; ++s) {
      if (!read_rows(PyTuple_GET_ITEM(state, s), kWritable, call.B, call.next[s])) return false;
    }
    return may_write(call);
  }

  // What FrozenStack::step asks of memory.
  bool may_write(const Call& call) const {
    for (int s = 0; s < states_; ++s) {
      const Bytes& next = call.next[s];
      if (!next.apart_from(call.y) || !next.apart_from(call.x)) return false;
      for (int other = 0; other < states_; ++other) {
        const Bytes& prev = call.prev[other];
        const bool in_place = other == s && prev.data == next.data;
        if (!in_place && !next.apart_from(prev)) return false;
        if (other < s && !next.apart_from(call.next[other])) return false;
      }
    }
    return true;
  }

  PyObject* run_into_new_arrays(Call& call) const {
    const py::ssize_t y_shape[] = {call.B, H_};
    const py::ssize_t state_shape[] = {L_, call.B, H_};
    Reference y, states[kMaxStates];
    if (!make_array(2, y_shape, y, call.y)) return nullptr;
    for (int s = 0; s < states_; ++s) {
      if (!make_array(3, state_shape, states[s], call.next[s])) return nullptr;
    }
    if (!execute(call)) return nullptr;
    Reference state(states_ == 1 ? states[0].release()
                                 : make_pair(states[0].release(), states[1].release()));
    return state.object == nullptr ? nullptr : make_pair(y.release(), state.release());
  }

  // False with an exception set where there is no memory. NumPy allocates small arrays faster than
  // we could wrap memory of ours.
  bool make_array(int ndim, const py::ssize_t* shape, Reference& array, Bytes& bytes) const {
    Py_INCREF(dtype_.ptr());  // the call takes it
    array.object = numpy_.PyArray_NewFromDescr_(numpy_.PyArray_Type_, dtype_.ptr(), ndim, shape,
                                                nullptr, nullptr, 0, nullptr);
    if (array.object == nullptr) return false;
    bytes.data = py::detail::array_proxy(array.object)->data;
    return true;
  }

  // Steals both.
  static PyObject* make_pair(PyObject* first, PyObject* second) {
    PyObject* pair = PyTuple_New(2);
    if (pair == nullptr) {
      Py_DECREF(first);
      Py_DECREF(second);
      return nullptr;
    }
    PyTuple_SET_ITEM(pair, 0, first);
    PyTuple_SET_ITEM(pair, 1, second);
    return pair;
  }

  // False with an exception set.
  bool execute(const Call& call) const {
    StackStep step;
    step.B = call.B;
    step.x = call.x.data;
    step.y = call.y.data;
    for (int s = 0; s < states_; ++s) {
      step.prev[s] = call.prev[s].data;
      step.next[s] = call.next[s].data;
    }
    try {
      if (releases_gil(*stack_, call.B)) {
        const ReleasedGil no_gil;
        stack_->step(step);
      } else {
        stack_->step(step);
      }
      return true;
    } catch (const Error& error) {
      PyErr_SetString(exception_type(error.status()), error.what());
    } catch (const std::bad_alloc&) {
      PyErr_NoMemory();
    } catch (const std::exception& error) {
      PyErr_SetString(PyExc_RuntimeError, error.what());
    }
    return false;
  }

  size_t output_bytes(py::ssize_t B) const { return static_cast<size_t>(B * H_ * item_); }
  size_t state_bytes(py::ssize_t B) const { return static_cast<size_t>(L_) * output_bytes(B); }

  std::shared_ptr<const FrozenStack> stack_;
  NumPy& numpy_;
  py::dtype dtype_;
  int type_num_;
  py::ssize_t item_;
  int states_;
  py::ssize_t I_, H_, L_;
};

PyObject* fast_step(PyObject* self, PyObject* const* arguments, Py_ssize_t count) {
  if (count != 3) {
    PyErr_Format(PyExc_TypeError, "fast_step: expected 3 arguments, got %zd", count);
    return nullptr;
  }
  const auto* step = static_cast<const FastStep*>(PyCapsule_GetPointer(self, kCapsuleName));
  return step == nullptr ? nullptr : step->run(arguments[0], arguments[1], arguments[2]);
}

// PyMethodDef has one type of function for all calling conventions.
PyMethodDef fast_step_method = {
    "fast_step", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&fast_step)),
    METH_FASTCALL, "fast_step(x_t, state, out): a step of plain NumPy arrays, or None."};

}  // namespace

py::object make_fast_step(std::shared_ptr<const FrozenStack> stack) {
  auto step = std::make_unique<FastStep>(std::move(stack));
  const py::capsule self(step.get(), kCapsuleName,
                         [](void* p) { delete static_cast<FastStep*>(p); });
  step.release();
  PyObject* function = PyCFunction_NewEx(&fast_step_method, self.ptr(), nullptr);
  if (function == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(function);
}

}  // namespace fusedrnn::bindings
