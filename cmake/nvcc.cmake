# Finds an nvcc that works here: the system's, or that of NVIDIA's wheels from PyPI (nvidia-cuda-nvcc,
# -crt, -runtime, -cccl and nvidia-nvvm of one version line) in the environment of the Python in use.
#
# fusedrnn_find_nvcc(<compiler> <reason>)
#   <compiler>: its path, empty where there is none; <reason>: why.
# Sets the cache variable FUSEDRNN_CUDA_LINK_DIR where the compiler has to be told where its own
# static runtime lies, as that of the wheels of 13.0 has.

set(FUSEDRNN_CUDA_MINIMUM 13.0)

function(fusedrnn_find_nvcc compiler reason)
  set(${compiler} "" PARENT_SCOPE)
  set(${reason} "" PARENT_SCOPE)
  set(named "${CMAKE_CUDA_COMPILER}")
  if(NOT named)
    set(named "$ENV{CUDACXX}")
  endif()
  if(named)
    find_program(FUSEDRNN_NVCC "${named}")
  else()
    _fusedrnn_wheel_folder(wheel)
    find_program(FUSEDRNN_NVCC nvcc HINTS "${wheel}" "$ENV{CUDA_HOME}" "$ENV{CUDA_PATH}"
                 PATHS /usr/local/cuda PATH_SUFFIXES bin)
  endif()
  mark_as_advanced(FUSEDRNN_NVCC)
  if(NOT FUSEDRNN_NVCC)
    set(${reason} "no nvcc was found" PARENT_SCOPE)
    return()
  endif()

  execute_process(COMMAND "${FUSEDRNN_NVCC}" --version OUTPUT_VARIABLE text ERROR_VARIABLE text)
  string(REGEX MATCH "release ([0-9.]+)" _ "${text}")
  if(NOT CMAKE_MATCH_1 OR CMAKE_MATCH_1 VERSION_LESS FUSEDRNN_CUDA_MINIMUM)
    set(wanted "expected CUDA ${FUSEDRNN_CUDA_MINIMUM} or newer")
    set(${reason} "${FUSEDRNN_NVCC}: ${wanted}, got '${CMAKE_MATCH_1}'" PARENT_SCOPE)
    return()
  endif()

  # A toolkit may lack a part, or refuse this host compiler: better known now than in the build.
  cmake_path(GET FUSEDRNN_NVCC PARENT_PATH folder)
  cmake_path(GET folder PARENT_PATH root)
  set(link_dir "")
  if(EXISTS "${root}/lib/libcudart_static.a" AND NOT EXISTS "${root}/lib64")
    set(link_dir "${root}/lib")
  endif()
  set(FUSEDRNN_CUDA_LINK_DIR "${link_dir}" CACHE INTERNAL "Where nvcc must be told cudart_static is")
  set(trial "${CMAKE_CURRENT_BINARY_DIR}/CMakeFiles/nvcc_trial")
  file(MAKE_DIRECTORY "${trial}")
  file(WRITE "${trial}/trial.cu" "#include <cuda_runtime.h>\n"
       "__global__ void kernel() {}\nint main() { kernel<<<1, 1>>>(); return 0; }\n")
  set(command "${FUSEDRNN_NVCC}" -std=c++20 -arch=sm_80 -ccbin "${CMAKE_CXX_COMPILER}" -o trial trial.cu)
  if(link_dir)
    list(APPEND command "-L${link_dir}")
  endif()
  execute_process(COMMAND ${command} WORKING_DIRECTORY "${trial}" RESULT_VARIABLE failed
                  OUTPUT_VARIABLE text ERROR_VARIABLE text)
  if(failed)
    string(STRIP "${text}" text)
    set(${reason} "${FUSEDRNN_NVCC} does not work with ${CMAKE_CXX_COMPILER}: ${text}" PARENT_SCOPE)
    return()
  endif()
  set(${compiler} "${FUSEDRNN_NVCC}" PARENT_SCOPE)
endfunction()

# fusedrnn_choose_cuda(<compiler> <architectures> <reason>)
#   <compiler>: the nvcc that builds the CUDA library, empty where none shall; <reason>: why;
#   <architectures>: what it builds for: FUSEDRNN_CUDA_ARCHS, or what stands in for it.
function(fusedrnn_choose_cuda compiler architectures reason)
  set(${compiler} "" PARENT_SCOPE)
  set(archs "${FUSEDRNN_CUDA_ARCHS}")
  if(NOT FUSEDRNN_CUDA)
    set(${reason} "FUSEDRNN_CUDA=${FUSEDRNN_CUDA}" PARENT_SCOPE)
    return()
  endif()
  if(FUSEDRNN_CUDA STREQUAL "AUTO")
    if(CMAKE_CROSSCOMPILING)
      set(${reason} "this build is for another machine" PARENT_SCOPE)
      return()
    elseif(FUSEDRNN_SANITIZE)
      set(${reason} "this build has sanitizers" PARENT_SCOPE)
      return()
    endif()
    if(NOT archs)
      fusedrnn_gpu_architectures(present)
      if(present)
        set(archs native)
      endif()
    endif()
  elseif(NOT archs)
    set(archs all)
  endif()

  fusedrnn_find_nvcc(found why)
  if(found AND NOT archs)
    # Minutes for what this machine cannot run: only who asks shall wait for it.
    set(why "nvcc is here, a GPU is not. CMAKE_ARGS=-DFUSEDRNN_CUDA=ON pip install . builds it for")
    string(APPEND why " all GPUs, with -DFUSEDRNN_CUDA_ARCHS=90a for one generation")
    set(found "")
  endif()
  set(${compiler} "${found}" PARENT_SCOPE)
  set(${architectures} "${archs}" PARENT_SCOPE)
  set(${reason} "${why}" PARENT_SCOPE)
endfunction()

# The folder that NVIDIA's wheels share, empty where they are not installed.
function(_fusedrnn_wheel_folder folder)
  set(${folder} "" PARENT_SCOPE)
  find_package(Python COMPONENTS Interpreter QUIET)
  if(Python_Interpreter_FOUND)
    execute_process(
      COMMAND "${Python_EXECUTABLE}" -c
              "import nvidia.cu13 as found; print(next(iter(found.__path__)))"
      OUTPUT_VARIABLE found OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    set(${folder} "${found}" PARENT_SCOPE)
  endif()
endfunction()

# fusedrnn_gpu_architectures(<list>): the capabilities of this machine's GPUs, as in 86;90a.
function(fusedrnn_gpu_architectures list)
  set(found "")
  find_program(FUSEDRNN_NVIDIA_SMI nvidia-smi)
  mark_as_advanced(FUSEDRNN_NVIDIA_SMI)
  if(FUSEDRNN_NVIDIA_SMI)
    execute_process(COMMAND "${FUSEDRNN_NVIDIA_SMI}" --query-gpu=compute_cap --format=csv,noheader
                    RESULT_VARIABLE failed OUTPUT_VARIABLE text ERROR_QUIET)
    if(NOT failed)
      string(REGEX MATCHALL "[0-9]+\\.[0-9]+" found "${text}")
      list(REMOVE_DUPLICATES found)
      list(TRANSFORM found REPLACE "\\." "")
      # The instructions that Hopper alone has.
      list(TRANSFORM found REPLACE "^90$" "90a")
    endif()
  endif()
  set(${list} "${found}" PARENT_SCOPE)
endfunction()
