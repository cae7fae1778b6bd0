# The CPU kernels: one list of instruction sets and their formats. Two formats of a set at a time are an object
# library of its own that compiles csrc/cpu/kernels/unit.cpp with the set's vector type and flags. The cells'
# maps compute with float or double: each set compiles csrc/cpu/kernels/maps.cpp for the two, and its units
# share them. So do those that the Python package alone has around the cells: csrc/nn/kernels/unit.cpp.
#
# Results: FUSEDRNN_ISAS_BUILT, the sets of this build, slowest first; FUSEDRNN_UNIT_TARGETS, the libraries,
# and FUSEDRNN_NN_TARGETS, those of nn;
# fusedrnn_isa.<set>, an interface library with the flags of a set; and the header cpu/isa/unit_list.h in the
# folder FUSEDRNN_GENERATED_DIR.

# A format's types as in kernels/format.h: Edge, Row, Panel. Two that stand together share a unit: headers are
# a fifth of the time that it takes. What converts narrow weights as it loads them:
set(FUSEDRNN_FORMATS
  float32         float,float,float
  float64         double,double,double
  bfloat16        Bf16,float,Bf16
  mixed_bfloat16  float,float,Bf16
  float16         Half,float,Half
  int8            float,float,Int8)
set(FUSEDRNN_DUAL_FORMATS
  dual32          Dual<float>,Dual<float>,Dual<float>
  dual64          Dual<double>,Dual<double>,Dual<double>)
# What has instructions for narrow numbers. Its other formats are those of the next slower set.
set(FUSEDRNN_NARROW_FORMATS
  bfloat16        Bf16,Bf16,Bf16
  mixed_bfloat16  float,Bf16,Bf16
  int8            float,Offset8,Int8)

# What maps compute with.
set(FUSEDRNN_REAL_float32 float)
set(FUSEDRNN_REAL_float64 double)
set(FUSEDRNN_REAL_dual32 Dual<float>)
set(FUSEDRNN_REAL_dual64 Dual<double>)

# Contraction is off so that only what says fma is fused and a result does not depend on what the compiler
# sees together. Kernels throw nothing, and a unit must share no symbol of the C++ runtime with other code.
set(FUSEDRNN_KERNEL_OPTIONS -ffp-contract=off -fno-math-errno -fno-trapping-math -fno-exceptions)
if(FUSEDRNN_SANITIZE)
  # In unrolled tiles the checks would take minutes to compile: accesses are checked by calls, and what
  # the address sanitizer finds as well is not checked twice.
  list(APPEND FUSEDRNN_KERNEL_OPTIONS -O1 -fno-sanitize=null,object-size,alignment)
  # Elementwise maps: numbers of floating point, and subscripts that the address sanitizer sees. Twice the
  # time of compilation otherwise.
  list(APPEND FUSEDRNN_KERNEL_OPTIONS $<$<BOOL:$<TARGET_PROPERTY:FUSEDRNN_IS_MAPS>>:-fno-sanitize=undefined>)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    list(APPEND FUSEDRNN_KERNEL_OPTIONS --param=asan-instrumentation-with-call-threshold=0)
  endif()
else()
  list(APPEND FUSEDRNN_KERNEL_OPTIONS $<IF:$<BOOL:$<TARGET_PROPERTY:FUSEDRNN_LEVEL>>,$<TARGET_PROPERTY:FUSEDRNN_LEVEL>,-O3>)
endif()

if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12 sees a subscript of -1 in loops over the states of cells that have one.
  list(APPEND FUSEDRNN_KERNEL_OPTIONS -Wno-array-bounds)
endif()

set(FUSEDRNN_ISAS_BUILT "")
set(FUSEDRNN_ISAS_KNOWN "")
set(FUSEDRNN_UNIT_TARGETS "")
set(FUSEDRNN_UNIT_LIST "")
set(FUSEDRNN_NN_TARGETS "")
set(FUSEDRNN_NN_LIST "")

# fusedrnn_add_isa(<set> HEADER <in csrc> [NEEDS <set>] FORMATS <name> <types>... [OPTIONS <flag>...])
# What needs another set has that one's vectors, and maps.
macro(fusedrnn_add_isa isa)
  cmake_parse_arguments(FUSEDRNN_SET "" "HEADER;NEEDS" "FORMATS;OPTIONS" ${ARGN})
  list(APPEND FUSEDRNN_ISAS_KNOWN ${isa})
  if("${isa}" IN_LIST FUSEDRNN_ISAS OR FUSEDRNN_ISAS STREQUAL "all")
    if(FUSEDRNN_SET_NEEDS AND NOT FUSEDRNN_SET_NEEDS IN_LIST FUSEDRNN_ISAS_BUILT)
      message(FATAL_ERROR "FUSEDRNN_ISAS: ${isa} needs ${FUSEDRNN_SET_NEEDS}, got ${FUSEDRNN_ISAS}")
    endif()
    list(APPEND FUSEDRNN_ISAS_BUILT ${isa})
    _fusedrnn_add_units(${isa})
  endif()
endmacro()

# One source, and by its own name: a compiler cache knows it again in every build.
function(_fusedrnn_add_object target isa source)
  add_library(${target} OBJECT ${source})
  target_link_libraries(${target} PRIVATE fusedrnn_isa.${isa})
  target_compile_definitions(${target} PRIVATE ${ARGN})
  # Narrow and dual numbers on a machine without AVX2, the portable set where each machine has NEON: as
  # right, compiled in half of the time.
  string(REGEX MATCH "^fusedrnn_(maps\\.scalar\\.dual|unit\\.scalar\\.[^.]*(float16|int8|dual))" rare "${target}")
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64" AND isa STREQUAL "scalar")
    set(rare TRUE)
  endif()
  string(REGEX MATCH "^fusedrnn_maps" is_maps "${target}")
  # Products are the same instructions as at -O3, in nine tenths of the time.
  set(level -O2)
  if(rare)
    set(level -O1)
  elseif(is_maps)
    set(level -O3)
  endif()
  set_target_properties(${target} PROPERTIES UNITY_BUILD OFF FUSEDRNN_LEVEL ${level}
                                             FUSEDRNN_IS_MAPS "${is_maps}")
  list(APPEND FUSEDRNN_UNIT_TARGETS ${target})
  set(FUSEDRNN_UNIT_TARGETS ${FUSEDRNN_UNIT_TARGETS} PARENT_SCOPE)
endfunction()

function(_fusedrnn_add_units isa)
  set(maps ${isa})
  if(FUSEDRNN_SET_NEEDS)
    set(maps ${FUSEDRNN_SET_NEEDS})
  endif()
  add_library(fusedrnn_isa.${isa} INTERFACE)
  target_link_libraries(fusedrnn_isa.${isa} INTERFACE fusedrnn_flags)
  target_compile_options(fusedrnn_isa.${isa} INTERFACE ${FUSEDRNN_KERNEL_OPTIONS} ${FUSEDRNN_SET_OPTIONS})
  target_compile_definitions(fusedrnn_isa.${isa} INTERFACE
    FUSEDRNN_ISA=${isa} FUSEDRNN_MAPS_ISA=${maps} FUSEDRNN_ISA_HEADER="${FUSEDRNN_SET_HEADER}")
  if(NOT FUSEDRNN_SET_NEEDS)
    set(reals float32 float64)
    if("dual32" IN_LIST FUSEDRNN_SET_FORMATS)
      list(APPEND reals dual32 dual64)
    endif()
    foreach(real IN LISTS reals)
      _fusedrnn_add_object(fusedrnn_maps.${isa}.${real} ${isa} csrc/cpu/kernels/maps.cpp
                           FUSEDRNN_MAPS=${real}_maps FUSEDRNN_ROWS=${real}_rows
                           "FUSEDRNN_MAPS_REAL=${FUSEDRNN_REAL_${real}}")
    endforeach()
    if(FUSEDRNN_PYTHON OR FUSEDRNN_TESTS)
      add_library(fusedrnn_nn.${isa} OBJECT csrc/nn/kernels/unit.cpp)
      target_link_libraries(fusedrnn_nn.${isa} PRIVATE fusedrnn_isa.${isa})
      set_target_properties(fusedrnn_nn.${isa} PROPERTIES UNITY_BUILD OFF)
      set(FUSEDRNN_NN_TARGETS ${FUSEDRNN_NN_TARGETS} fusedrnn_nn.${isa} PARENT_SCOPE)
    endif()
    set(FUSEDRNN_NN_LIST "${FUSEDRNN_NN_LIST} F(${isa})" PARENT_SCOPE)
  endif()
  while(FUSEDRNN_SET_FORMATS)
    list(POP_FRONT FUSEDRNN_SET_FORMATS format types)
    set(name ${format})
    set(definitions FUSEDRNN_UNIT=${format} FUSEDRNN_UNIT_FORMAT=${types})
    string(APPEND FUSEDRNN_UNIT_LIST " \\\n  F(${isa}, ${format})")
    if(FUSEDRNN_SET_FORMATS)
      list(POP_FRONT FUSEDRNN_SET_FORMATS format types)
      string(APPEND name "_${format}")
      list(APPEND definitions FUSEDRNN_SECOND_UNIT=${format} FUSEDRNN_SECOND_UNIT_FORMAT=${types})
      string(APPEND FUSEDRNN_UNIT_LIST " \\\n  F(${isa}, ${format})")
    endif()
    _fusedrnn_add_object(fusedrnn_unit.${isa}.${name} ${isa} csrc/cpu/kernels/unit.cpp ${definitions})
  endwhile()
  set(FUSEDRNN_UNIT_TARGETS ${FUSEDRNN_UNIT_TARGETS} PARENT_SCOPE)
  set(FUSEDRNN_UNIT_LIST "${FUSEDRNN_UNIT_LIST}" PARENT_SCOPE)
endfunction()

if(FUSEDRNN_SANITIZE AND NOT FUSEDRNN_ISAS STREQUAL "scalar")
  # The tests run a faster set; this one stays without checks.
  set(FUSEDRNN_UNCHECKED OPTIONS -fno-sanitize=all -O0)
  # Dual numbers run through the same templates as float and double.
  set(duals "")
else()
  set(duals ${FUSEDRNN_DUAL_FORMATS})
endif()
fusedrnn_add_isa(scalar HEADER cpu/isa/scalar/vec.h FORMATS ${FUSEDRNN_FORMATS} ${FUSEDRNN_DUAL_FORMATS}
                 ${FUSEDRNN_UNCHECKED})
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
  fusedrnn_add_isa(avx2 HEADER cpu/isa/avx2/vec.h FORMATS ${FUSEDRNN_FORMATS} ${duals} OPTIONS -mavx2 -mfma -mf16c)

  set(FUSEDRNN_AVX512 -mavx512f -mavx512vl -mavx512bw -mavx512dq -mavx2 -mfma -mf16c
                      -mprefer-vector-width=512)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    # GCC 12 warns of uninitialised values inside its own AVX-512 intrinsics (GCC bug 105593).
    list(APPEND FUSEDRNN_AVX512 -Wno-maybe-uninitialized)
  endif()
  fusedrnn_add_isa(avx512 HEADER cpu/isa/avx512/vec.h FORMATS ${FUSEDRNN_FORMATS} ${duals} OPTIONS ${FUSEDRNN_AVX512})

  set(FUSEDRNN_AVX512_BF16 ${FUSEDRNN_AVX512} -mavx512bf16 -mavx512vnni)
  fusedrnn_add_isa(avx512_bf16 HEADER cpu/isa/avx512_bf16/dot.h NEEDS avx512
                   FORMATS ${FUSEDRNN_NARROW_FORMATS} OPTIONS ${FUSEDRNN_AVX512_BF16})
  fusedrnn_add_isa(amx_bf16 HEADER cpu/isa/amx_bf16/matrix_unit.h NEEDS avx512
                   FORMATS ${FUSEDRNN_NARROW_FORMATS}
                   OPTIONS ${FUSEDRNN_AVX512_BF16} -mamx-tile -mamx-bf16 -mamx-int8)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|AARCH64|arm64|ARM64")
  # Part of the baseline. GCC's scheduling before register allocation would begin a tile's step with all
  # of its loads, and spill accumulators.
  fusedrnn_add_isa(neon HEADER cpu/isa/neon/vec.h FORMATS ${FUSEDRNN_FORMATS} ${duals}
                   OPTIONS $<$<CXX_COMPILER_ID:GNU>:-fno-schedule-insns>)
endif()

if(NOT FUSEDRNN_ISAS STREQUAL "all")
  foreach(isa IN LISTS FUSEDRNN_ISAS)
    if(NOT isa IN_LIST FUSEDRNN_ISAS_KNOWN)
      message(FATAL_ERROR "FUSEDRNN_ISAS: expected all or some of ${FUSEDRNN_ISAS_KNOWN}, got ${isa}")
    endif()
  endforeach()
  # What every machine can run: nothing else is sure to.
  if(NOT "scalar" IN_LIST FUSEDRNN_ISAS AND NOT "neon" IN_LIST FUSEDRNN_ISAS_BUILT)
    message(FATAL_ERROR "FUSEDRNN_ISAS: expected scalar among them, got ${FUSEDRNN_ISAS}")
  endif()
endif()

set(FUSEDRNN_GENERATED_DIR "${PROJECT_BINARY_DIR}/generated")
file(CONFIGURE OUTPUT "${FUSEDRNN_GENERATED_DIR}/cpu/isa/unit_list.h" @ONLY CONTENT
"// By cmake/cpu_units.cmake: the units of this build, those of the slowest set first.
#pragma once

#define FUSEDRNN_FOR_EACH_UNIT(F)@FUSEDRNN_UNIT_LIST@

// The sets that have kernels of nn.
#define FUSEDRNN_FOR_EACH_NN(F)@FUSEDRNN_NN_LIST@
")
