// Which sequences a thread has, in which order they lie in memory, and how many live at a time.
//
// Where sequences are of several lengths, what an engine keeps of them lies in the order of their
// ends, long ones first, and threads take turns in it: so those that still live are the first rows
// of every thread, and no step, product or sum looks at the others. Only what is the caller's lies
// by number.
#pragma once

#include <cstdint>

#include "core/problem.h"
#include "cpu/kernels/inline.h"

namespace fusedrnn::cpu {

// The order of all sequences; null: as the caller has them, and all live all the time.
struct Order {
  const int32_t* numbers = nullptr;  // the sequence of each place in memory
  const int32_t* places = nullptr;   // and the place of each sequence
  const int64_t* ends = nullptr;     // by place, falling: the time after the last step that exists
  const uint8_t* flags = nullptr;    // StepFlags of all steps, each by group of threads and row
  int64_t first_time = 0;            // what ends count from, of a chunk of steps

  FUSEDRNN_MEMBER int64_t number(int64_t place) const {
    return numbers == nullptr ? place : numbers[place];
  }
  FUSEDRNN_MEMBER int64_t place(int64_t number) const {
    return places == nullptr ? number : places[number];
  }
};

// From a thread's rows to what lies by number.
struct Numbers {
  const int32_t* order = nullptr;  // null: as rows are, from the thread's first one on
  int64_t step = 1;

  FUSEDRNN_MEMBER int64_t of(int64_t row) const {
    return order == nullptr ? row : order[row * step];
  }
};

// Those of a thread, by row.
struct Sequences {
  Order order;
  int64_t T;
  int64_t first, step, count;  // their places
  int64_t before;              // rows of the groups of threads before its own

  FUSEDRNN_MEMBER int64_t place(int64_t row) const { return first + row * step; }
  FUSEDRNN_MEMBER int64_t number(int64_t row) const { return order.number(place(row)); }
  FUSEDRNN_MEMBER Numbers numbers() const {
    return order.numbers == nullptr ? Numbers{} : Numbers{order.numbers + first, step};
  }
  // Number of what lies by number and `numbers()` counts from.
  FUSEDRNN_MEMBER int64_t first_number() const { return order.numbers == nullptr ? first : 0; }

  // The time after a row's last step that exists.
  FUSEDRNN_MEMBER int64_t end(int64_t row) const {
    if (order.ends == nullptr) return T;
    const int64_t end = order.ends[place(row)] - order.first_time;
    return end < 0 ? 0 : end < T ? end : T;
  }
  // How many, from row 0 on, have not ended at a time.
  FUSEDRNN_MEMBER int64_t living(int64_t time) const {
    if (order.ends == nullptr) return count;
    int64_t low = 0, high = count;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (order.ends[place(middle)] - order.first_time > time) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }
};

}  // namespace fusedrnn::cpu
