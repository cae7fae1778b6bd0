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

}  // namespace fusedrnn
