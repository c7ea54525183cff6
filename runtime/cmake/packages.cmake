# Finds what Panthera links against. Every package comes from the distribution; a missing one ends
# configuration with the name of its Debian package.

function(panthera_missing what package)
  message(FATAL_ERROR "${what} was not found. Install it with: apt-get install ${package}")
endfunction()

# panthera_require(MODULE what package): find_package that knows the package's name.
macro(panthera_require module what package)
  find_package(${module} QUIET)
  if(NOT ${module}_FOUND)
    panthera_missing("${what}" "${package}")
  endif()
endmacro()

find_package(Threads REQUIRED)

find_package(OpenMP COMPONENTS CXX)
if(NOT OpenMP_CXX_FOUND)
  panthera_missing("OpenMP" "g++")
endif()

find_package(MPI COMPONENTS CXX)
if(NOT MPI_CXX_FOUND)
  panthera_missing("MPI" "libopenmpi-dev openmpi-bin")
endif()

panthera_require(absl "Abseil" "libabsl-dev")

find_library(OPENCL_LIBRARY OpenCL)
if(NOT OPENCL_LIBRARY)
  # The distribution's oneDNN is linked to OpenCL and its CMake package insists on it.
  panthera_missing("OpenCL, which oneDNN needs," "ocl-icd-opencl-dev")
endif()
panthera_require(dnnl "oneDNN" "libdnnl-dev")

panthera_require(PkgConfig "pkg-config" "pkg-config")
pkg_check_modules(SENTENCEPIECE QUIET IMPORTED_TARGET sentencepiece)
if(NOT SENTENCEPIECE_FOUND)
  panthera_missing("SentencePiece" "libsentencepiece-dev")
endif()
pkg_check_modules(XXHASH QUIET IMPORTED_TARGET libxxhash)
if(NOT XXHASH_FOUND)
  panthera_missing("xxHash" "libxxhash-dev")
endif()

panthera_require(nlohmann_json "nlohmann-json" "nlohmann-json3-dev")
panthera_require(tomlplusplus "toml++" "libtomlplusplus-dev")
panthera_require(CLI11 "CLI11" "libcli11-dev")

if(PANTHERA_TESTS)
  panthera_require(GTest "GoogleTest" "libgtest-dev libgmock-dev")
  panthera_require(benchmark "Google Benchmark" "libbenchmark-dev")
endif()
