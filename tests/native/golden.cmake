# The file of golden cases, FUSEDRNN_GOLDEN, and the target golden_cases that makes it, once a build; or that
# of another build. What Python (with NumPy) computes at build time, a test does without, as under an emulator.
include_guard(GLOBAL)
find_package(Python REQUIRED COMPONENTS Interpreter)
set(FUSEDRNN_GOLDEN "${PROJECT_BINARY_DIR}/golden.bin" CACHE FILEPATH "Golden cases of the native tests")
if(NOT FUSEDRNN_GOLDEN STREQUAL "${PROJECT_BINARY_DIR}/golden.bin")
  add_custom_target(golden_cases)
  return()
endif()
file(GLOB sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/tests/reference/*.py"
     "${PROJECT_SOURCE_DIR}/tests/oracle/*.py")
add_custom_command(
  OUTPUT "${FUSEDRNN_GOLDEN}"
  COMMAND "${CMAKE_COMMAND}" -E env "PYTHONPATH=${PROJECT_SOURCE_DIR}/tests"
          "${Python_EXECUTABLE}" -B "${CMAKE_CURRENT_LIST_DIR}/golden.py" "${FUSEDRNN_GOLDEN}"
  DEPENDS "${CMAKE_CURRENT_LIST_DIR}/golden.py" ${sources}
  COMMENT "Computing the expected results of golden cases"
  VERBATIM)
add_custom_target(golden_cases DEPENDS "${FUSEDRNN_GOLDEN}")
