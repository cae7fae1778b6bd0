// The part of XLA's foreign function interface that is used, declared here so that neither a build
// nor a user needs XLA's headers. Layouts are those of its C API, version 0.3, which says that they
// grow at the end alone while the major version stays; tests/xla_ffi holds them against the header
// that jaxlib carries.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fusedrnn::xla {

constexpr int kMajorVersion = 0, kMinorVersion = 3;

struct Extension {  // XLA_FFI_Extension_Base
  size_t struct_size;
  int type;
  Extension* next;
};
constexpr int kMetadataExtension = 1;

struct Version {  // XLA_FFI_Api_Version
  size_t struct_size;
  Extension* extensions;
  int major_version, minor_version;
};

struct Metadata {  // XLA_FFI_Metadata; after this come fields for handlers with a state
  size_t struct_size;
  Version version;
  uint32_t traits;
};
struct MetadataExtension {
  Extension base;
  Metadata* metadata;
};

enum ErrorCode : int {
  kInvalidArgument = 3,
  kResourceExhausted = 8,
  kInternal = 13,
  kUnavailable = 14,
};
struct Error;  // XLA's own

struct ErrorCreateArgs {
  size_t struct_size;
  Extension* extensions;
  const char* message;
  ErrorCode code;
};
struct ErrorMessageArgs {  // XLA_FFI_Error_GetMessage_Args
  size_t struct_size;
  Extension* extensions;
  Error* error;
  const char* message;  // out
};
struct ErrorDestroyArgs {
  size_t struct_size;
  Extension* extensions;
  Error* error;
};

// On devices; each function that takes one returns an error or null.
struct StreamArgs {  // XLA_FFI_Stream_Get_Args
  size_t struct_size;
  Extension* extensions;
  void* context;
  void* stream;  // out
};
struct OrdinalArgs {  // XLA_FFI_DeviceOrdinal_Get_Args
  size_t struct_size;
  Extension* extensions;
  void* context;
  int32_t ordinal;  // out
};
struct AllocateArgs {  // XLA_FFI_DeviceMemory_Allocate_Args
  size_t struct_size;
  Extension* extensions;
  void* context;
  size_t size, alignment;
  void* data;  // out
};
struct FreeArgs {  // XLA_FFI_DeviceMemory_Free_Args
  size_t struct_size;
  Extension* extensions;
  void* context;
  size_t size;
  void* data;
};

enum DataType : int {
  kPred = 1,
  kS8 = 2,
  kS16 = 3,
  kS32 = 4,
  kS64 = 5,
  kU8 = 6,
  kU16 = 7,
  kU32 = 8,
  kU64 = 9,
  kF16 = 10,
  kF32 = 11,
  kF64 = 12,
  kC64 = 15,
  kBF16 = 16,
  kC128 = 18,
};

struct Buffer {
  size_t struct_size;
  Extension* extensions;
  DataType dtype;
  void* data;
  int64_t rank;
  int64_t* dims;
};

struct ByteSpan {
  const char* data;
  size_t size;
};
struct Scalar {
  DataType dtype;
  void* value;
};
struct Array {
  DataType dtype;
  size_t size;
  void* data;
};

// Values of the lists of types below.
constexpr int kBuffer = 1;
enum AttributeType : int { kArray = 1, kDictionary = 2, kScalar = 3, kString = 4 };

struct Buffers {  // XLA_FFI_Args and XLA_FFI_Rets
  size_t struct_size;
  Extension* extensions;
  int64_t size;
  int* types;
  void** items;
};
struct Attributes {  // XLA_FFI_Attrs
  size_t struct_size;
  Extension* extensions;
  int64_t size;
  AttributeType* types;
  ByteSpan** names;
  void** items;
};

struct Api {  // XLA_FFI_Api; const void*: functions that are not used
  size_t struct_size;
  Extension* extensions;
  Version version;
  const void* internal;
  Error* (*error_create)(ErrorCreateArgs*);
  void (*error_get_message)(ErrorMessageArgs*);
  void (*error_destroy)(ErrorDestroyArgs*);
  const void* handler_register;
  Error* (*stream_get)(StreamArgs*);
  const void *type_register, *execution_context_get, *state_set, *state_get;
  Error* (*allocate)(AllocateArgs*);
  Error* (*free)(FreeArgs*);
  const void *schedule, *num_threads, *future_create, *future_set_available, *future_set_error;
  const void* run_id_get;
  Error* (*ordinal_get)(OrdinalArgs*);
};

constexpr int kExecute = 3;  // of stages

struct CallFrame {
  size_t struct_size;
  Extension* extensions;
  const Api* api;
  void* context;
  int stage;
  Buffers arguments, results;
  Attributes attributes;
  void* future;
};

}  // namespace fusedrnn::xla
