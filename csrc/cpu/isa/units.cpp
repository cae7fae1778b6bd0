#include "cpu/isa/units.h"

#include "cpu/isa/unit_list.h"

namespace fusedrnn::cpu {

#define FUSEDRNN_DECLARE_UNIT(isa, format) \
  namespace isa {                          \
  extern const Unit format;                \
  }
FUSEDRNN_FOR_EACH_UNIT(FUSEDRNN_DECLARE_UNIT)
#undef FUSEDRNN_DECLARE_UNIT

namespace {

constexpr int kIsas = static_cast<int>(Isa::amx_bf16) + 1;
constexpr int kArithmetics = static_cast<int>(Arithmetic::dual64) + 1;

struct ListedUnit {
  Isa isa;
  Arithmetic arithmetic;
  const Unit* unit;
};
#define FUSEDRNN_LIST_UNIT(isa, format) {Isa::isa, Arithmetic::format, &isa::format},
constexpr ListedUnit kListed[] = {FUSEDRNN_FOR_EACH_UNIT(FUSEDRNN_LIST_UNIT)};
#undef FUSEDRNN_LIST_UNIT

struct UnitTable {
  const Unit* units[kIsas][kArithmetics] = {};

  consteval UnitTable() {
    for (const ListedUnit& listed : kListed) {
      // For the faster sets, too, until those have their own.
      for (int isa = static_cast<int>(listed.isa); isa < kIsas; ++isa) {
        units[isa][static_cast<int>(listed.arithmetic)] = listed.unit;
      }
    }
  }
};
constexpr UnitTable kTable;

// By the list: under a sanitizer to compare an address with null is no constant expression.
consteval bool every_format_runs_anywhere() {
  bool listed[kArithmetics] = {};
  for (const ListedUnit& unit : kListed) {
    if (unit.isa == kListed[0].isa) listed[static_cast<int>(unit.arithmetic)] = true;
  }
  for (const bool found : listed) {
    if (!found) return false;
  }
  return true;
}
static_assert(every_format_runs_anywhere(), "the slowest set has not a unit for each format");

}  // namespace

std::vector<Isa> compiled_isas() {
  std::vector<Isa> isas;
  for (const ListedUnit& listed : kListed) {
    if (isas.empty() || isas.back() != listed.isa) isas.push_back(listed.isa);
  }
  return isas;
}

Arithmetic arithmetic_of(const Problem& p) {
  if (p.compute == Compute::bfloat16 && p.dtype == Dtype::float32) {
    return Arithmetic::mixed_bfloat16;
  }
  if (p.compute == Compute::int8) return Arithmetic::int8;
  switch (p.dtype) {
    case Dtype::float64:
      return Arithmetic::float64;
    case Dtype::bfloat16:
      return Arithmetic::bfloat16;
    case Dtype::float16:
      return Arithmetic::float16;
    case Dtype::dual32:
      return Arithmetic::dual32;
    case Dtype::dual64:
      return Arithmetic::dual64;
    default:
      return Arithmetic::float32;
  }
}

const Unit& unit_of(Isa isa, Arithmetic arithmetic) {
  return *kTable.units[static_cast<int>(isa)][static_cast<int>(arithmetic)];
}

}  // namespace fusedrnn::cpu
