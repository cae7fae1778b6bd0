#include "core/dtype.h"

#include <iterator>

namespace fusedrnn {
namespace {

constexpr DtypeInfo kDtypes[] = {
    {Dtype::float32, "float32", {kDLFloat, 32, 1}},
    {Dtype::float64, "float64", {kDLFloat, 64, 1}},
    {Dtype::bfloat16, "bfloat16", {kDLBfloat, 16, 1}},
    {Dtype::float16, "float16", {kDLFloat, 16, 1}},
};

constexpr bool in_order() {
  int i = 0;
  for (const DtypeInfo& info : kDtypes) {
    if (static_cast<int>(info.dtype) != i++) return false;
  }
  return true;
}
static_assert(in_order(), "kDtypes lists the types in the order of Dtype");

}  // namespace

const DtypeInfo& dtype_info(Dtype dtype) { return kDtypes[static_cast<int>(dtype)]; }

const DtypeInfo* find_dtype(DLDataType dlpack) {
  for (const DtypeInfo& info : kDtypes) {
    if (info.dlpack.code == dlpack.code && info.dlpack.bits == dlpack.bits && dlpack.lanes == 1) {
      return &info;
    }
  }
  return nullptr;
}

const DtypeInfo* find_dtype(const std::string& name) {
  for (const DtypeInfo& info : kDtypes) {
    if (name == info.name) return &info;
  }
  return nullptr;
}

std::string dtype_names() {
  std::string names = kDtypes[0].name;
  for (size_t i = 1; i < std::size(kDtypes); ++i) {
    names += (i + 1 < std::size(kDtypes) ? ", " : " or ") + std::string(kDtypes[i].name);
  }
  return names;
}

}  // namespace fusedrnn
