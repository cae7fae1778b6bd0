// The GIL taken by a callback of the CUDA library, on whatever thread that runs.
#pragma once

#include <pybind11/pybind11.h>

#if defined(__GLIBCXX__)
#include <cxxabi.h>
#include <unistd.h>
#endif

namespace fusedrnn::bindings {

// pybind11::gil_scoped_acquire, but for the end of the process: as with ReleasedGil, a daemon
// thread that Python ends there is stopped where it is.
class HeldGil {
 public:
  HeldGil() : state_(ensure()) {}
  HeldGil(const HeldGil&) = delete;
  HeldGil& operator=(const HeldGil&) = delete;
  ~HeldGil() { PyGILState_Release(state_); }

 private:
  static PyGILState_STATE ensure() {
#if defined(__GLIBCXX__)
    try {
      return PyGILState_Ensure();
    } catch (const abi::__forced_unwind&) {
      for (;;) pause();
    }
#else
    return PyGILState_Ensure();
#endif
  }

  PyGILState_STATE state_;
};

}  // namespace fusedrnn::bindings
