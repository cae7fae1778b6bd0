// The GIL taken by what other libraries call back, on whatever thread that is.
#pragma once

#include <pybind11/pybind11.h>

namespace fusedrnn::bindings {

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

}  // namespace fusedrnn::bindings
