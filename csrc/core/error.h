// Errors that reach the caller: a status of the C ABI and a message that names the argument.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdio>
#include <exception>
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

// What the system says of a file.
class FileError : public Error {
 public:
  FileError(const std::string& path, int code);
  const std::string& path() const { return path_; }
  int code() const { return code_; }  // an errno

 private:
  std::string path_;
  int code_;
};

// Memory that is not to be had, with what was wanted of it. Its message lies in it: there may be no
// memory for one.
class OutOfMemory : public std::bad_alloc {
 public:
  explicit OutOfMemory(size_t bytes) noexcept {
    std::snprintf(text_, sizeof text_, "out of memory: cannot allocate %zu bytes", bytes);
  }
  OutOfMemory() noexcept = default;
  const char* what() const noexcept override { return text_; }

 private:
  char text_[80] = "out of memory: the problem is too large to address";  // in a size_t
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

  Name(const char* name, int number = -1)  // NOLINT: most arguments have one word
      : base(name), run(number) {}
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

// As messages show a number that need not be whole: as short as can be read back.
std::string number_text(double value);

[[noreturn]] inline void refuse_value(const Name& name, const std::string& wanted,
                                      const std::string& got) {
  throw_value_error(expected(name, wanted, got));
}
template <std::integral Number>
[[noreturn]] void refuse_value(const Name& name, const std::string& wanted, Number got) {
  throw_value_error(expected(name, wanted, std::to_string(got)));
}
[[noreturn]] inline void refuse_type(const Name& name, const std::string& wanted,
                                     const std::string& got) {
  throw_type_error(expected(name, wanted, got));
}

inline void check_address(const char* name, const void* p) {
  if (p == nullptr) refuse_value(name, "an address", "null");
}
template <class T>
const T& not_null(const char* name, const T* p) {
  check_address(name, p);
  return *p;
}

// The message of this thread's last failure; "" before the first.
const char* last_error() noexcept;

// Sets that message and returns `status`; allocates nothing.
fusedrnn_status fail(fusedrnn_status status, const char* message) noexcept;

// Where exceptions become a status and that message.
template <class Body>
fusedrnn_status guarded(const Body& body) noexcept {
  try {
    body();
    return FUSEDRNN_OK;
  } catch (const Error& error) {
    return fail(error.status(), error.what());
  } catch (const std::bad_alloc& error) {
    return fail(FUSEDRNN_OUT_OF_MEMORY, message_of(error));
  } catch (const std::length_error&) {
    return fail(FUSEDRNN_OUT_OF_MEMORY, "out of memory");
  } catch (const std::exception& error) {
    return fail(FUSEDRNN_INTERNAL, error.what());
  } catch (...) {
    return fail(FUSEDRNN_INTERNAL, "an exception of an unknown type");
  }
}

}  // namespace fusedrnn
