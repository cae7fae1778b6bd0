// Checks of one tensor by itself; core/validate.h puts them together for a call.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <string>

#include "core/error.h"
#include "core/problem.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn {

// Far below the range of int64, so that engines may add padding and sum a few sizes or offsets.
constexpr int64_t kMaxBytes = std::numeric_limits<int64_t>::max() / 64;

constexpr int kMaxRank = 8;  // nothing here has more axes; so every tensor's fit in a small array

class Shape {
 public:
  Shape(std::initializer_list<int64_t> extents) {
    for (const int64_t extent : extents) add(extent);
  }
  void add(int64_t extent) { extents_[rank_++] = extent; }
  int rank() const { return rank_; }
  const int64_t* begin() const { return extents_; }
  const int64_t* end() const { return extents_ + rank_; }

 private:
  int64_t extents_[kMaxRank];
  int rank_ = 0;
};

// What an argument's elements are; the wording of a wrong type is the same wherever it is noticed.
enum class ElementKind { floating, integer, boolean, any };
[[noreturn]] void throw_wrong_dtype(const Name& name, ElementKind kind, const std::string& got);

const DLTensor& required(const Name& name, const DLTensor* t);

void check_on_cpu(const Name& name, DLDevice device);
// Of the array that decides where a call runs.
void check_usable_device(const Name& name, DLDevice device);
// Of the others: where `whose` lies.
void check_device(const Name& name, DLDevice device, DLDevice wanted, const char* whose);

// What must hold before anything else of a tensor may be looked at: a shape.
void check_header(const Name& name, const DLTensor& t);

bool has_type(const DLTensor& t, int code, std::initializer_list<int> widths);
Dtype floating_dtype(const Name& name, const DLTensor& t);

void check_rank(const Name& name, const DLTensor& t, int rank, const char* axes);
void check_shape(const Name& name, const DLTensor& t, Shape shape);

void check_bytes(const Name& name, const DLTensor& t);  // they fit in kMaxBytes

// These three expect that they do.
void check_data(const Name& name, const DLTensor& t);     // not null where there are elements
void check_strides(const Name& name, const DLTensor& t);  // no offset overflows
void check_dense(const Name& name, const DLTensor& t);    // dense last axis, aligned

// All that can be said of a tensor without a call, but for where it lies: of a size that memory can
// hold, `dtype` and `shape` as expected (null dtype, rank -1: any; kAnyExtent in a shape: any).
void check_tensor(const Name& name, const DLTensor& t, const char* dtype, const int64_t* shape,
                  int rank);

}  // namespace fusedrnn
