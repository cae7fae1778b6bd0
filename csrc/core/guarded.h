// Where exceptions become a status of the C ABI and this thread's message.
#pragma once

#include <exception>
#include <new>
#include <stdexcept>
#include <string>

#include "core/error.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn {

// The message of this thread's last failure; "" before the first.
const char* last_error() noexcept;

// Sets that message and returns `status`.
fusedrnn_status fail(fusedrnn_status status, const char* message) noexcept;

// The same for a string literal, which is not copied: for threads that may not allocate.
fusedrnn_status fail_with_literal(fusedrnn_status status, const char* message) noexcept;

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

template <class T>
const T& not_null(const char* name, const T* p) {
  if (p == nullptr) throw_value_error(std::string(name) + ": expected an address, got null");
  return *p;
}

}  // namespace fusedrnn
