// The Python object `Frozen`: a network with packed weights.
#pragma once

#include <pybind11/pybind11.h>

#include <atomic>
#include <memory>

#include "core/frozen.h"
#include "core/memory.h"

namespace fusedrnn::bindings {

namespace py = pybind11;

class Frozen {
 public:
  explicit Frozen(std::shared_ptr<const fusedrnn_frozen> handle);
  ~Frozen();
  Frozen(const Frozen&) = delete;
  Frozen& operator=(const Frozen&) = delete;

  const fusedrnn_frozen& handle() const { return *handle_; }
  const Network& network() const { return handle_->network; }

  // One step of dense arrays, the only one that there is: `prev` and `next` one [R,B,n] for each
  // state of the cell (null: zero); next[s] may be prev[s]. `y` [B,n] gets the output last, and may
  // share memory with what is read. Any number of threads may call it. Allocates nothing once it
  // has run with as many sequences, but for what runs beside another call or on a team of threads.
  struct Arrays {
    int64_t B;
    const void* x;
    const void* prev[kMaxStates];
    void* next[kMaxStates];
    void* y;
  };
  void step(const Arrays& arrays) const;

  // Whether other Python threads may run during a step of B sequences.
  bool releases_gil(int64_t B) const;

 private:
  class Workspace;
  class Lease;

  std::shared_ptr<const fusedrnn_frozen> handle_;
  int64_t work_;  // multiply-adds of a step of one sequence
  // The workspace of the last step, for the next: taken by an exchange, so that nobody waits. A
  // step that finds it taken makes its own.
  mutable std::atomic<Workspace*> spare_{nullptr};
};

// step(x_t, state, out) of plain dense NumPy arrays; None, and nothing done, where they are not
// that.
py::object make_step(std::shared_ptr<const Frozen> frozen);

}  // namespace fusedrnn::bindings
