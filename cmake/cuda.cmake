# Builds libfusedrnn_cuda where FUSEDRNN_CUDA, FUSEDRNN_CUDA_ARCHS and this machine say so.
include("${CMAKE_CURRENT_LIST_DIR}/nvcc.cmake")

fusedrnn_choose_cuda(nvcc FUSEDRNN_CUDA_ARCHS reason)
if(nvcc)
  set(CMAKE_CUDA_COMPILER "${nvcc}")
  add_subdirectory(csrc/cuda)
elseif(FUSEDRNN_CUDA STREQUAL "AUTO")
  message(STATUS "fusedrnn: built without CUDA: ${reason}")
elseif(FUSEDRNN_CUDA)
  message(FATAL_ERROR "FUSEDRNN_CUDA=${FUSEDRNN_CUDA}: ${reason}")
endif()
