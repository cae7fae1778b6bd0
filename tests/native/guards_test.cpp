// Every output of every call lies among bytes that nobody may write: before it, behind it and
// between its rows. Sizes that are no multiple of a vector, for every cell and format. The values
// are those of golden_test; here only their places count.

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "check.h"
#include "cpu/isa/detect.h"
#include "fusedrnn/fusedrnn.h"

namespace {

// What ctest takes for "not on this machine".
constexpr int kSkipped = 77;

constexpr int kCells = FUSEDRNN_LSTM + 1;
constexpr int64_t kHidden[] = {1, 3, 5, 7, 9, 13, 16, 17, 31, 33};

struct Format {
  const char* name;
  DLDataType type;
  int32_t compute;
  bool trains;
};
constexpr Format kFormats[] = {
    {"float32", {kDLFloat, 32, 1}, FUSEDRNN_COMPUTE_SAME, true},
    {"float64", {kDLFloat, 64, 1}, FUSEDRNN_COMPUTE_SAME, true},
    {"bfloat16", {kDLBfloat, 16, 1}, FUSEDRNN_COMPUTE_SAME, true},
    {"float16", {kDLFloat, 16, 1}, FUSEDRNN_COMPUTE_SAME, true},
    {"float32 computed in bfloat16", {kDLFloat, 32, 1}, FUSEDRNN_COMPUTE_BFLOAT16, true},
    {"float32 computed in int8", {kDLFloat, 32, 1}, FUSEDRNN_COMPUTE_INT8, false},
};

// An array whose rows lie apart, or densely, between two margins.
class Array {
 public:
  Array(const Format& format, std::vector<int64_t> shape, bool apart = true)
      : shape_(std::move(shape)), strides_(shape_.size(), 1), type_(format.type) {
    int64_t count = shape_.back();
    if (apart && shape_.size() > 1) count += kMargin;
    for (size_t axis = shape_.size() - 1; axis-- > 0;) {
      strides_[axis] = count;
      count *= shape_[axis];
    }
    memory_.assign(static_cast<size_t>((count + 2 * kMargin) * item()), kUntouched);
  }

  // Small numbers, the same in every type.
  void fill(uint32_t seed) {
    for_elements([&](unsigned char* element) {
      seed = seed * 1664525u + 1013904223u;
      const double values[] = {0, 0.5, -0.5, 0.25, -0.25};
      const uint16_t halves[] = {0, 0x3800, 0xb800, 0x3400, 0xb400};
      const uint32_t which = (seed >> 16) % 5;
      if (type_.bits == 64) {
        std::memcpy(element, &values[which], sizeof values[which]);
        return;
      }
      const float value = static_cast<float>(values[which]);
      uint32_t bits = 0;
      std::memcpy(&bits, &value, sizeof bits);
      const uint16_t upper = static_cast<uint16_t>(bits >> 16);
      const uint16_t word = type_.code == kDLBfloat ? upper : halves[which];
      if (type_.bits == 32) {
        std::memcpy(element, &value, sizeof value);
      } else {
        std::memcpy(element, &word, sizeof word);
      }
    });
  }

  // Whether nothing around the elements has changed; the elements themselves are marked anew.
  bool intact() {
    for_elements([&](unsigned char* element) {
      std::memset(element, kUntouched, static_cast<size_t>(item()));
    });
    for (const unsigned char byte : memory_) {
      if (byte != kUntouched) return false;
    }
    return true;
  }

  DLTensor* tensor() {
    tensor_ = {};
    tensor_.data = data();
    tensor_.device = {kDLCPU, 0};
    tensor_.ndim = static_cast<int32_t>(shape_.size());
    tensor_.dtype = type_;
    tensor_.shape = shape_.data();
    tensor_.strides = strides_.data();
    return &tensor_;
  }
  void* data() { return memory_.data() + kMargin * item(); }

 private:
  static constexpr int64_t kMargin = 64;  // two vectors of every set and more
  static constexpr unsigned char kUntouched = 0xa5;

  int64_t item() const { return type_.bits / 8; }

  template <class Visit>
  void for_elements(const Visit& visit) {
    int64_t rows = 1;
    for (size_t axis = 0; axis + 1 < shape_.size(); ++axis) rows *= shape_[axis];
    const int64_t stride = shape_.size() > 1 ? strides_[shape_.size() - 2] : 0;
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t i = 0; i < shape_.back(); ++i) {
        visit(static_cast<unsigned char*>(data()) + (row * stride + i) * item());
      }
    }
  }

  std::vector<int64_t> shape_, strides_;
  DLDataType type_;
  std::vector<unsigned char> memory_;
  DLTensor tensor_;
};

struct Sizes {
  int64_t T, B, I, H;
};

class Problem {
 public:
  Problem(const Format& format, int32_t cell, const Sizes& sizes)
      : format_(format), cell_(cell), s_(sizes) {
    for (Array* array : {&x_, &w_ih_, &w_hh_, &b_ih_, &b_hh_, &h0_, &c0_, &dy_, &dh_n_, &dc_n_}) {
      array->fill(static_cast<uint32_t>(++seed_));
    }
  }

  void run() {
    if (format_.trains) {
      forward(nullptr, nullptr);
      fusedrnn_tape* tape = nullptr;
      forward(nullptr, &tape);
      for (const bool accumulate : {false, true}) backward(tape, accumulate);
      fusedrnn_tape_free(tape);
    }
    fusedrnn_freeze_args args{};
    args.size = sizeof args;
    args.cell = cell_;
    args.compute = format_.compute;
    args.w_ih = w_ih_.tensor();
    args.w_hh = w_hh_.tensor();
    args.b_ih = b_ih_.tensor();
    args.b_hh = b_hh_.tensor();
    fusedrnn_frozen* frozen = nullptr;
    succeeded(fusedrnn_freeze(&args, &frozen), "freeze");
    forward(frozen, nullptr);
    step(frozen);
    fusedrnn_frozen_free(frozen);
  }

 private:
  bool is_lstm() const { return cell_ == FUSEDRNN_LSTM; }
  int64_t gates() const { return is_lstm() ? 4 : cell_ < FUSEDRNN_GRU ? 1 : 3; }

  void forward(const fusedrnn_frozen* frozen, fusedrnn_tape** tape) {
    fusedrnn_forward_args args{};
    args.size = sizeof args;
    args.cell = cell_;
    args.x = x_.tensor();
    args.h0 = h0_.tensor();
    args.c0 = is_lstm() ? c0_.tensor() : nullptr;
    args.y = y_.tensor();
    args.h_n = h_n_.tensor();
    args.c_n = is_lstm() ? c_n_.tensor() : nullptr;
    fusedrnn_status status = FUSEDRNN_OK;
    if (frozen != nullptr) {
      status = fusedrnn_frozen_forward(frozen, &args);
    } else {
      args.compute = format_.compute;
      args.w_ih = w_ih_.tensor();
      args.w_hh = w_hh_.tensor();
      args.b_ih = b_ih_.tensor();
      args.b_hh = b_hh_.tensor();
      status = fusedrnn_forward(&args, tape);
    }
    const char* const call = frozen != nullptr ? "frozen forward" : tape ? "training" : "inference";
    succeeded(status, call);
    unharmed(y_, call, "y");
    unharmed(h_n_, call, "h_n");
    unharmed(c_n_, call, "c_n");
  }

  void backward(const fusedrnn_tape* tape, bool accumulate) {
    fusedrnn_backward_args args{};
    args.size = sizeof args;
    args.tape = tape;
    args.dy = dy_.tensor();
    args.dh_n = dh_n_.tensor();
    args.dc_n = is_lstm() ? dc_n_.tensor() : nullptr;
    args.dx = dx_.tensor();
    args.dw_ih = dw_ih_.tensor();
    args.dw_hh = dw_hh_.tensor();
    args.db_ih = db_ih_.tensor();
    args.db_hh = db_hh_.tensor();
    args.dh0 = dh0_.tensor();
    args.dc0 = is_lstm() ? dc0_.tensor() : nullptr;
    args.accumulate_dx = accumulate;
    succeeded(fusedrnn_backward(&args), "backward");
    unharmed(dx_, "backward", "dx");
    unharmed(dw_ih_, "backward", "dw_ih");
    unharmed(dw_hh_, "backward", "dw_hh");
    unharmed(db_ih_, "backward", "db_ih");
    unharmed(db_hh_, "backward", "db_hh");
    unharmed(dh0_, "backward", "dh0");
    unharmed(dc0_, "backward", "dc0");
  }

  void step(const fusedrnn_frozen* frozen) {
    constexpr size_t kLine = 64;
    const size_t bytes = fusedrnn_frozen_workspace(frozen, s_.B);
    std::vector<unsigned char> block(bytes + 3 * kLine, kGuard);
    void* place = block.data() + kLine;
    size_t room = bytes + kLine;
    auto* const workspace = static_cast<unsigned char*>(std::align(kLine, bytes, place, room));
    Array x(format_, {s_.B, s_.I}, false), h(format_, {s_.B, s_.H}, false), c = h;
    Array h_next = h, c_next = h;
    for (Array* array : {&x, &h, &c}) array->fill(static_cast<uint32_t>(++seed_));
    const void* const prev[] = {h.data(), c.data()};
    void* const next[] = {h_next.data(), c_next.data()};
    succeeded(fusedrnn_frozen_step(frozen, s_.B, x.data(), prev, next, workspace), "step");
    unharmed(h_next, "step", "h");
    unharmed(c_next, "step", "c");
    for (unsigned char* p = block.data(); p != block.data() + block.size(); ++p) {
      if (p == workspace) p += bytes;
      if (*p != kGuard) {
        report("step", "the workspace");
        break;
      }
    }
  }

  void succeeded(fusedrnn_status status, const char* call) const {
    if (status != FUSEDRNN_OK) report(call, fusedrnn_last_error());
  }
  void unharmed(Array& array, const char* call, const char* name) const {
    if (!array.intact()) report(call, name);
  }
  void report(const char* call, const char* what) const {
    std::ostringstream where;
    where << format_.name << ", cell " << cell_ << ", H " << s_.H << ", B " << s_.B << ": " << call
          << ": " << what;
    check::fail(__FILE__, __LINE__, where.str());
  }

  static constexpr unsigned char kGuard = 0x5a;

  const Format& format_;
  const int32_t cell_;
  const Sizes s_;
  int seed_ = 0;
  Array x_{format_, {s_.T, s_.B, s_.I}}, y_{format_, {s_.T, s_.B, s_.H}}, dx_ = x_, dy_ = y_;
  Array w_ih_{format_, {gates() * s_.H, s_.I}}, w_hh_{format_, {gates() * s_.H, s_.H}};
  Array dw_ih_ = w_ih_, dw_hh_ = w_hh_;
  Array b_ih_{format_, {gates() * s_.H}}, b_hh_ = b_ih_, db_ih_ = b_ih_, db_hh_ = b_ih_;
  Array h0_{format_, {s_.B, s_.H}}, c0_ = h0_, h_n_ = h0_, c_n_ = h0_;
  Array dh0_ = h0_, dc0_ = h0_, dh_n_ = h0_, dc_n_ = h0_;
};

// Whether the set that is asked for can run here.
bool can_run() {
  try {
    fusedrnn::cpu::selected_isa();
    return true;
  } catch (const fusedrnn::Error& error) {
    std::cout << error.what() << "\n";
    return false;
  }
}

}  // namespace

int main() {
  if (!can_run()) return kSkipped;
  for (const int32_t threads : {1, 2}) {
    CHECK(fusedrnn_set_num_threads(threads) == FUSEDRNN_OK);
    for (const Format& format : kFormats) {
      for (int32_t cell = 0; cell < kCells; ++cell) {
        for (const int64_t H : kHidden) {
          Problem(format, cell, {1, 1, H, H}).run();
          Problem(format, cell, {3, 5, 18 - H % 17, H}).run();
        }
      }
    }
  }
  return check::result();
}
