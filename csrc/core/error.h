// Errors that reach the caller: a status of the C ABI and a message that names the argument.
#pragma once

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
