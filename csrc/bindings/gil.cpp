#include "bindings/gil.h"

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <thread>

namespace fusedrnn::bindings {
namespace {

constinit std::atomic<bool> python_ends{false};
// How many HeldGil there are, and how many of this thread.
constinit std::atomic<int> inside{0};
thread_local constinit int inside_here = 0;

// The child of a fork has none of the other threads.
[[maybe_unused]] const int fork_is_seen =
    pthread_atfork(nullptr, nullptr, [] { inside.store(inside_here); });

// Among the functions of atexit, when Python is still whole. With the GIL.
void at_the_end_of_python() {
  python_ends = true;
  const pybind11::gil_scoped_release no_gil;
  while (inside > inside_here) std::this_thread::sleep_for(std::chrono::microseconds(100));
}

}  // namespace

HeldGil::HeldGil() {
  // First counted, then looked: whoever sees no end here is seen by at_the_end_of_python().
  ++inside_here;
  ++inside;
  held_ = !python_ends && Py_IsInitialized() != 0;
  if (held_) state_ = PyGILState_Ensure();
}

HeldGil::~HeldGil() {
  if (held_) PyGILState_Release(state_);
  --inside;
  --inside_here;
}

void watch_for_the_end_of_python() {
  python_ends = false;
  pybind11::module_::import("atexit").attr("register")(
      pybind11::cpp_function(at_the_end_of_python));
}

}  // namespace fusedrnn::bindings
