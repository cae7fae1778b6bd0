#include "core/error.h"

#include <charconv>
#include <cstdio>
#include <system_error>

namespace fusedrnn {
namespace {

// Room for any message that is not made to be long, and nothing to be destroyed: the functions of
// atexit, which come after the destructors of a thread, may still call us.
thread_local constinit char message[4096] = {};

}  // namespace

const char* last_error() noexcept { return message; }

fusedrnn_status fail(fusedrnn_status status, const char* text) noexcept {
  std::snprintf(message, sizeof message, "%s", text);
  return status;
}

FileError::FileError(const std::string& path, int code)
    : Error(FUSEDRNN_FILE_ERROR, path + ": " + std::generic_category().message(code)),
      path_(path),
      code_(code) {}

std::string number_text(double value) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

}  // namespace fusedrnn
