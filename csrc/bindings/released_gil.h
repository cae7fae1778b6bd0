// The GIL released for as long as kernels run.
#pragma once

#include <pybind11/pybind11.h>

#if defined(__GLIBCXX__)
#include <cxxabi.h>
#include <unistd.h>
#endif

namespace fusedrnn::bindings {

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
