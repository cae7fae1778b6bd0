// The element types of a call: their names, their widths and what DLPack calls them.
#pragma once

#include <cstdint>
#include <string>

#include "core/problem.h"
#include "fusedrnn/fusedrnn.h"

namespace fusedrnn {

struct DtypeInfo {
  Dtype dtype;
  const char* name;
  DLDataType dlpack;
};

const DtypeInfo& dtype_info(Dtype dtype);

// Null where it is no type of a call.
const DtypeInfo* find_dtype(DLDataType dlpack);
const DtypeInfo* find_dtype(const std::string& name);

// "float32, float64, bfloat16 or float16", for messages.
std::string dtype_names();

inline const char* dtype_name(Dtype dtype) { return dtype_info(dtype).name; }
inline int64_t item_size(Dtype dtype) { return dtype_info(dtype).dlpack.bits / 8; }

}  // namespace fusedrnn
