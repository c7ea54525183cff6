# Where GPU code comes from.

set(PANTHERA_CUDA "off" CACHE STRING
                              "GPU code: off, nvcc, or emulated (run on the CPU, for tests)")
set_property(CACHE PANTHERA_CUDA PROPERTY STRINGS off nvcc emulated)

if(PANTHERA_CUDA STREQUAL "nvcc")
  # Ampere and later; Hopper's own instructions need the "a".
  set(CMAKE_CUDA_ARCHITECTURES "80;90a" CACHE STRING "GPU architectures to compile for")
  enable_language(CUDA)
  # CMake 3.25 does not know nvcc's flag for C++20.
  if(NOT DEFINED CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
  endif()
  set(CMAKE_CUDA_STANDARD 20)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  find_package(CUDAToolkit REQUIRED)
  # NCCL comes with some toolkits or in packages of its own. Linked as a shared library, so that a
  # user can run with another version.
  find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
  find_library(NCCL_LIBRARY NAMES libnccl.so libnccl.so.2 HINTS ${CUDAToolkit_LIBRARY_DIR}
                                                               ${CUDAToolkit_LIBRARY_ROOT}/lib)
  if(NCCL_INCLUDE_DIR AND NCCL_LIBRARY)
    set(NCCL_FOUND TRUE)
    message(STATUS "NCCL: ${NCCL_LIBRARY}")
  else()
    set(NCCL_FOUND FALSE)
    message(STATUS "NCCL was not found: this build trains on one GPU, or on several through host "
                   "memory only. Install NVIDIA's packages libnccl2 and libnccl-dev, or set "
                   "NCCL_INCLUDE_DIR and NCCL_LIBRARY")
  endif()
elseif(NOT PANTHERA_CUDA MATCHES "^(off|emulated)$")
  message(FATAL_ERROR "PANTHERA_CUDA is \"${PANTHERA_CUDA}\"; it must be off, nvcc or emulated")
endif()

# panthera_cuda_sources(TARGET CUDA file... [OTHERWISE file...]): adds to TARGET the first files, C++
# or .cu, in a build with GPU code, else the others.
function(panthera_cuda_sources target)
  cmake_parse_arguments(ARG "" "" "CUDA;OTHERWISE" ${ARGN})
  if(PANTHERA_CUDA STREQUAL "off")
    target_sources(${target} PRIVATE ${ARG_OTHERWISE})
    return()
  endif()
  target_sources(${target} PRIVATE ${ARG_CUDA})
  if(PANTHERA_CUDA STREQUAL "emulated")
    # A host compiler reads the same text; <cuda_runtime.h> is the emulation's. Sizes that are
    # template parameters are int in CUDA's manner.
    foreach(file IN LISTS ARG_CUDA)
      if(file MATCHES "\\.cu$")
        set_source_files_properties(${file} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS
                                                 "-xc++;-Wno-sign-conversion;-Wno-unknown-pragmas")
      endif()
    endforeach()
    target_link_libraries(${target} PRIVATE panthera_simt)
  else()
    target_link_libraries(${target} PRIVATE CUDA::cudart_static)
  endif()
endfunction()

# panthera_hopper_sources(TARGET HOPPER file... [OTHERWISE file...]): adds to TARGET, after its
# libraries are known, the first files in a build that compiles for Hopper's own instructions, and
# for them only; else, if it has GPU code, the others. The emulation does not have these
# instructions.
function(panthera_hopper_sources target)
  cmake_parse_arguments(ARG "" "" "HOPPER;OTHERWISE" ${ARGN})
  if(PANTHERA_CUDA STREQUAL "nvcc" AND CMAKE_CUDA_ARCHITECTURES MATCHES
                                       "(^|;)90a(-real|-virtual)?(;|$)")
    add_library(${target}_hopper OBJECT ${ARG_HOPPER})
    set_target_properties(${target}_hopper PROPERTIES CUDA_ARCHITECTURES 90a)
    target_link_libraries(${target}_hopper PRIVATE $<TARGET_PROPERTY:${target},LINK_LIBRARIES>)
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:${target}_hopper>)
  elseif(ARG_OTHERWISE)
    panthera_cuda_sources(${target} CUDA ${ARG_OTHERWISE})
  endif()
endfunction()
