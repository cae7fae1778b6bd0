// Our declarations of XLA's foreign function interface beside those of jaxlib's header: compiled by
// tests/test_jax_handlers.py, never run.
#include <cstddef>

#include "bindings/xla_ffi_abi.h"
#include "xla/ffi/api/c_api.h"

namespace ours = fusedrnn::xla;

static_assert(ours::kMajorVersion == XLA_FFI_API_MAJOR);
static_assert(ours::kMinorVersion <= XLA_FFI_API_MINOR);

#define SAME_PLACE(mine, field, theirs, their_field)                           \
  static_assert(offsetof(ours::mine, field) == offsetof(theirs, their_field)); \
  static_assert(sizeof(ours::mine::field) == sizeof(theirs::their_field))
#define SAME_SIZE(mine, theirs) static_assert(sizeof(ours::mine) == sizeof(theirs))

SAME_SIZE(Extension, XLA_FFI_Extension_Base);
SAME_PLACE(Extension, type, XLA_FFI_Extension_Base, type);
SAME_PLACE(Extension, next, XLA_FFI_Extension_Base, next);
static_assert(ours::kMetadataExtension == XLA_FFI_Extension_Metadata);

SAME_SIZE(Version, XLA_FFI_Api_Version);
SAME_PLACE(Version, major_version, XLA_FFI_Api_Version, major_version);
SAME_PLACE(Version, minor_version, XLA_FFI_Api_Version, minor_version);

SAME_PLACE(Metadata, version, XLA_FFI_Metadata, api_version);
SAME_PLACE(Metadata, traits, XLA_FFI_Metadata, traits);
static_assert(sizeof(ours::Metadata) <= sizeof(XLA_FFI_Metadata));
SAME_SIZE(MetadataExtension, XLA_FFI_Metadata_Extension);
SAME_PLACE(MetadataExtension, metadata, XLA_FFI_Metadata_Extension, metadata);

static_assert(int{ours::kInvalidArgument} == XLA_FFI_Error_Code_INVALID_ARGUMENT);
static_assert(int{ours::kResourceExhausted} == XLA_FFI_Error_Code_RESOURCE_EXHAUSTED);
static_assert(int{ours::kInternal} == XLA_FFI_Error_Code_INTERNAL);
static_assert(int{ours::kUnavailable} == XLA_FFI_Error_Code_UNAVAILABLE);
SAME_SIZE(ErrorCreateArgs, XLA_FFI_Error_Create_Args);
SAME_PLACE(ErrorCreateArgs, message, XLA_FFI_Error_Create_Args, message);
SAME_PLACE(ErrorCreateArgs, code, XLA_FFI_Error_Create_Args, errc);
SAME_SIZE(ErrorMessageArgs, XLA_FFI_Error_GetMessage_Args);
SAME_PLACE(ErrorMessageArgs, error, XLA_FFI_Error_GetMessage_Args, error);
SAME_PLACE(ErrorMessageArgs, message, XLA_FFI_Error_GetMessage_Args, message);
SAME_SIZE(ErrorDestroyArgs, XLA_FFI_Error_Destroy_Args);
SAME_PLACE(ErrorDestroyArgs, error, XLA_FFI_Error_Destroy_Args, error);

SAME_SIZE(StreamArgs, XLA_FFI_Stream_Get_Args);
SAME_PLACE(StreamArgs, context, XLA_FFI_Stream_Get_Args, ctx);
SAME_PLACE(StreamArgs, stream, XLA_FFI_Stream_Get_Args, stream);
SAME_SIZE(OrdinalArgs, XLA_FFI_DeviceOrdinal_Get_Args);
SAME_PLACE(OrdinalArgs, context, XLA_FFI_DeviceOrdinal_Get_Args, ctx);
SAME_PLACE(OrdinalArgs, ordinal, XLA_FFI_DeviceOrdinal_Get_Args, device_ordinal);
SAME_SIZE(AllocateArgs, XLA_FFI_DeviceMemory_Allocate_Args);
SAME_PLACE(AllocateArgs, context, XLA_FFI_DeviceMemory_Allocate_Args, ctx);
SAME_PLACE(AllocateArgs, size, XLA_FFI_DeviceMemory_Allocate_Args, size);
SAME_PLACE(AllocateArgs, alignment, XLA_FFI_DeviceMemory_Allocate_Args, alignment);
SAME_PLACE(AllocateArgs, data, XLA_FFI_DeviceMemory_Allocate_Args, data);
SAME_SIZE(FreeArgs, XLA_FFI_DeviceMemory_Free_Args);
SAME_PLACE(FreeArgs, context, XLA_FFI_DeviceMemory_Free_Args, ctx);
SAME_PLACE(FreeArgs, size, XLA_FFI_DeviceMemory_Free_Args, size);
SAME_PLACE(FreeArgs, data, XLA_FFI_DeviceMemory_Free_Args, data);

static_assert(int{ours::kPred} == XLA_FFI_DataType_PRED);
static_assert(int{ours::kS8} == XLA_FFI_DataType_S8);
static_assert(int{ours::kS16} == XLA_FFI_DataType_S16);
static_assert(int{ours::kS32} == XLA_FFI_DataType_S32);
static_assert(int{ours::kS64} == XLA_FFI_DataType_S64);
static_assert(int{ours::kU8} == XLA_FFI_DataType_U8);
static_assert(int{ours::kU16} == XLA_FFI_DataType_U16);
static_assert(int{ours::kU32} == XLA_FFI_DataType_U32);
static_assert(int{ours::kU64} == XLA_FFI_DataType_U64);
static_assert(int{ours::kF16} == XLA_FFI_DataType_F16);
static_assert(int{ours::kF32} == XLA_FFI_DataType_F32);
static_assert(int{ours::kF64} == XLA_FFI_DataType_F64);
static_assert(int{ours::kC64} == XLA_FFI_DataType_C64);
static_assert(int{ours::kBF16} == XLA_FFI_DataType_BF16);
static_assert(int{ours::kC128} == XLA_FFI_DataType_C128);

SAME_SIZE(Buffer, XLA_FFI_Buffer);
SAME_PLACE(Buffer, dtype, XLA_FFI_Buffer, dtype);
SAME_PLACE(Buffer, data, XLA_FFI_Buffer, data);
SAME_PLACE(Buffer, rank, XLA_FFI_Buffer, rank);
SAME_PLACE(Buffer, dims, XLA_FFI_Buffer, dims);
static_assert(ours::kBuffer == XLA_FFI_ArgType_BUFFER);
static_assert(ours::kBuffer == XLA_FFI_RetType_BUFFER);

SAME_SIZE(ByteSpan, XLA_FFI_ByteSpan);
SAME_PLACE(ByteSpan, data, XLA_FFI_ByteSpan, ptr);
SAME_PLACE(ByteSpan, size, XLA_FFI_ByteSpan, len);
SAME_SIZE(Scalar, XLA_FFI_Scalar);
SAME_PLACE(Scalar, dtype, XLA_FFI_Scalar, dtype);
SAME_PLACE(Scalar, value, XLA_FFI_Scalar, value);
SAME_SIZE(Array, XLA_FFI_Array);
SAME_PLACE(Array, dtype, XLA_FFI_Array, dtype);
SAME_PLACE(Array, size, XLA_FFI_Array, size);
SAME_PLACE(Array, data, XLA_FFI_Array, data);
static_assert(int{ours::kArray} == XLA_FFI_AttrType_ARRAY);
static_assert(int{ours::kScalar} == XLA_FFI_AttrType_SCALAR);
static_assert(int{ours::kString} == XLA_FFI_AttrType_STRING);

SAME_SIZE(Buffers, XLA_FFI_Args);
SAME_PLACE(Buffers, size, XLA_FFI_Args, size);
SAME_PLACE(Buffers, types, XLA_FFI_Args, types);
SAME_PLACE(Buffers, items, XLA_FFI_Args, args);
SAME_SIZE(Buffers, XLA_FFI_Rets);
SAME_PLACE(Buffers, size, XLA_FFI_Rets, size);
SAME_PLACE(Buffers, types, XLA_FFI_Rets, types);
SAME_PLACE(Buffers, items, XLA_FFI_Rets, rets);
SAME_SIZE(Attributes, XLA_FFI_Attrs);
SAME_PLACE(Attributes, size, XLA_FFI_Attrs, size);
SAME_PLACE(Attributes, types, XLA_FFI_Attrs, types);
SAME_PLACE(Attributes, names, XLA_FFI_Attrs, names);
SAME_PLACE(Attributes, items, XLA_FFI_Attrs, attrs);

SAME_PLACE(Api, version, XLA_FFI_Api, api_version);
SAME_PLACE(Api, error_create, XLA_FFI_Api, XLA_FFI_Error_Create);
SAME_PLACE(Api, error_get_message, XLA_FFI_Api, XLA_FFI_Error_GetMessage);
SAME_PLACE(Api, error_destroy, XLA_FFI_Api, XLA_FFI_Error_Destroy);
SAME_PLACE(Api, stream_get, XLA_FFI_Api, XLA_FFI_Stream_Get);
SAME_PLACE(Api, allocate, XLA_FFI_Api, XLA_FFI_DeviceMemory_Allocate);
SAME_PLACE(Api, free, XLA_FFI_Api, XLA_FFI_DeviceMemory_Free);
SAME_PLACE(Api, ordinal_get, XLA_FFI_Api, XLA_FFI_DeviceOrdinal_Get);
static_assert(sizeof(ours::Api) <= sizeof(XLA_FFI_Api));

static_assert(ours::kExecute == XLA_FFI_ExecutionStage_EXECUTE);
SAME_PLACE(CallFrame, api, XLA_FFI_CallFrame, api);
SAME_PLACE(CallFrame, context, XLA_FFI_CallFrame, ctx);
SAME_PLACE(CallFrame, stage, XLA_FFI_CallFrame, stage);
SAME_PLACE(CallFrame, arguments, XLA_FFI_CallFrame, args);
SAME_PLACE(CallFrame, results, XLA_FFI_CallFrame, rets);
SAME_PLACE(CallFrame, attributes, XLA_FFI_CallFrame, attrs);
