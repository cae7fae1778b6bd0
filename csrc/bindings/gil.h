// The GIL, given away while kernels run and taken by what other libraries call back: both with
// regard to the end of Python, which pybind11's own guards do not survive.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

#if defined(__GLIBCXX__)
#include <cxxabi.h>
#include <unistd.h>
#endif

namespace fusedrnn::bindings {

// Other Python threads may run during work of as many multiply-adds, about ten microseconds: to
// give the GIL away and to come back for it costs a tenth of it where nobody wants it, and up to
// Python's switching interval where somebody does.
constexpr int64_t kGilWork = int64_t{1} << 18;

// pybind11::gil_scoped_acquire, but for the end of Python. From then on the GIL is given to nobody:
// before 3.14 a thread that asks for it is ended by unwinding, which terminates the process in the
// first function that lets no exception out, and since 3.14 it never comes back, which whoever
// joins it waits for. So nobody asks any more once Python has begun to end, and what needs the GIL
// is left undone. Python waits for those that are asking by then.
class HeldGil {
 public:
  HeldGil();
  ~HeldGil();
  HeldGil(const HeldGil&) = delete;
  HeldGil& operator=(const HeldGil&) = delete;

  // False where Python ends or has ended: the GIL is not held then, unless the caller had it.
  explicit operator bool() const { return held_; }

 private:
  bool held_;
  PyGILState_STATE state_{};
};

// To be called while the module is imported.
void watch_for_the_end_of_python();

// pybind11::gil_scoped_release, but for the end of the process: before 3.14 Python ends a daemon
// thread that comes back for the GIL then with pthread_exit, whose unwinding terminates the process
// at the first destructor. As 3.14 does, such a thread is stopped where it is.
class ReleasedGil {
 public:
  ReleasedGil() : state_(PyEval_SaveThread()) {}
  ReleasedGil(const ReleasedGil&) = delete;
  ReleasedGil& operator=(const ReleasedGil&) = delete;
  ~ReleasedGil() {
#if defined(__GLIBCXX__)
    try {
      PyEval_RestoreThread(state_);
    } catch (const abi::__forced_unwind&) {
      for (;;) pause();
    }
#else
    PyEval_RestoreThread(state_);
#endif
  }

 private:
  PyThreadState* state_;
};

}  // namespace fusedrnn::bindings
