// Errors that reach the caller: a status of the C ABI and a message that names the argument.
#pragma once

#include <charconv>
#include <cstddef>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>

#include "fusedrnn/fusedrnn.h"

namespace fusedrnn {

class Error : public std::runtime_error {
 public:
  Error(fusedrnn_status status, const std::string& message)
      : std::runtime_error(message), status_(status) {}
  fusedrnn_status status() const { return status_; }

 private:
  fusedrnn_status status_;
};

// Memory that is not to be had, with what was wanted of it. Its message lies in it: there may be no
// memory for one.
class OutOfMemory : public std::bad_alloc {
 public:
  explicit OutOfMemory(size_t bytes) noexcept {
    char number[24] = {};
    std::to_chars(number, number + sizeof number - 1, bytes);
    add("out of memory: cannot allocate ");
    add(number);
    add(" bytes");
  }
  // More than a size_t counts.
  OutOfMemory() noexcept { add("out of memory: the problem is too large to address"); }
  const char* what() const noexcept override { return text_; }

 private:
  void add(const char* part) noexcept {
    std::strncat(text_, part, sizeof text_ - 1 - std::strlen(text_));
  }

  char text_[80] = {};
};

// That message, or for what the C++ library throws the little that is known.
inline const char* message_of(const std::bad_alloc& error) noexcept {
  const auto* ours = dynamic_cast<const OutOfMemory*>(&error);
  return ours == nullptr ? "out of memory" : ours->what();
}

[[noreturn]] inline void throw_value_error(const std::string& message) {
  throw Error(FUSEDRNN_INVALID_VALUE, message);
}
[[noreturn]] inline void throw_type_error(const std::string& message) {
  throw Error(FUSEDRNN_INVALID_TYPE, message);
}

// The name of an argument, put together where a message needs it: "x", "dw_ih", "runs[2].c_n".
struct Name {
  const char* base;
  const char* before = "";
  const char* after = "";
  int run = -1;  // negative: of a call that has one

  Name(const char* name) : base(name) {}  // NOLINT: most arguments have one word
  Name(const char* prefix, const char* name, const char* suffix, int number)
      : base(name), before(prefix), after(suffix), run(number) {}

  std::string text() const {
    const std::string owner = run < 0 ? "" : "runs[" + std::to_string(run) + "].";
    return owner + before + base + after;
  }
};

// "name: expected what, got what".
inline std::string expected(const Name& name, const std::string& what, const std::string& got) {
  return name.text() + ": expected " + what + ", got " + got;
}

}  // namespace fusedrnn
