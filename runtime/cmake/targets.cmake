# The compiler options of all targets, and functions that declare libraries and tests.

include(GoogleTest)

add_library(panthera_options INTERFACE)
target_include_directories(panthera_options INTERFACE ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR})
set(cxx_options
    -Wall
    -Wextra
    # Constructor arguments may bear the names of the members they initialise.
    $<$<CXX_COMPILER_ID:GNU>:-Wshadow=local>
    $<$<CXX_COMPILER_ID:Clang>:-Wshadow>
    # CHECK(false) is a loop without an end to Clang, which CHECK's [[unlikely]] does not suit.
    $<$<CXX_COMPILER_ID:Clang>:-Wno-ignored-attributes>
    -Wconversion
    -Wsign-conversion
    # Sums and products keep their bits on every machine: no contraction into FMAs unless the code
    # asks for one.
    -ffp-contract=off
    # Row loops in ops and optimizers vectorize; reductions keep their written order.
    -ftree-vectorize
    -fno-math-errno
    -fno-trapping-math)
# Kernels, in the same spirit; functions marked constexpr serve both sides.
set(cuda_options --expt-relaxed-constexpr -fmad=false -Xcompiler=-Wall)
if(PANTHERA_PTXAS_REPORT)
  list(APPEND cuda_options -Xptxas=-v)
endif()
if(PANTHERA_WERROR)
  list(APPEND cxx_options -Werror)
  list(APPEND cuda_options --Werror=all-warnings)
endif()
target_compile_options(
  panthera_options INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:${cxx_options}>"
                             "$<$<COMPILE_LANGUAGE:CUDA>:${cuda_options}>")
if(PANTHERA_SANITIZER STREQUAL "address")
  target_compile_options(panthera_options INTERFACE -fsanitize=address,undefined
                                                    -fno-sanitize-recover=undefined
                                                    -fno-omit-frame-pointer)
  target_link_options(panthera_options INTERFACE -fsanitize=address,undefined)
elseif(PANTHERA_SANITIZER STREQUAL "fuzzer")
  # The programs in tests/fuzz are linked with libFuzzer itself.
  target_compile_options(panthera_options INTERFACE -fsanitize=address,undefined,fuzzer-no-link
                                                    -fno-sanitize-recover=undefined
                                                    -fno-omit-frame-pointer)
  target_link_options(panthera_options INTERFACE -fsanitize=address,undefined)
elseif(PANTHERA_SANITIZER STREQUAL "thread")
  target_compile_options(panthera_options INTERFACE -fsanitize=thread -fno-omit-frame-pointer)
  target_link_options(panthera_options INTERFACE -fsanitize=thread)
endif()
target_link_libraries(panthera_options INTERFACE Threads::Threads)

# panthera_library(NAME SOURCES file... [PUBLIC lib...] [PRIVATE lib...])
function(panthera_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_link_libraries(
    ${name}
    PUBLIC panthera_options ${ARG_PUBLIC}
    PRIVATE ${ARG_PRIVATE})
endfunction()

# panthera_uses_gpu(VARIABLE SOURCE): whether a source file of a test, or a header under tests/ that
# it includes, asks for the devices of this machine.
function(panthera_uses_gpu result source)
  set(uses OFF)
  get_filename_component(queue ${source} ABSOLUTE)
  set(seen)
  while(queue AND NOT uses)
    list(POP_FRONT queue file)
    list(APPEND seen ${file})
    if(NOT EXISTS ${file})
      # Made by the build.
      continue()
    endif()
    file(STRINGS ${file} lines REGEX "ComputeDevices\\(|^#include \"tests/")
    foreach(line IN LISTS lines)
      if(line MATCHES "^#include \"(tests/[^\"]+)\"")
        set(header ${CMAKE_SOURCE_DIR}/${CMAKE_MATCH_1})
        if(NOT header IN_LIST seen)
          list(APPEND queue ${header})
        endif()
      elseif(line MATCHES "ComputeDevices\\(")
        set(uses ON)
      endif()
    endforeach()
  endwhile()
  set(${result} ${uses} PARENT_SCOPE)
endfunction()

# Programs that have something to do on a machine with a GPU: their targets, for which
# panthera_write_gpu_programs makes target `gpu_programs`, which builds them, and file
# gpu_programs.txt in the build folder: "program" or "test", and its path, a line each.
set_property(GLOBAL PROPERTY PANTHERA_GPU_PROGRAMS "")
set_property(GLOBAL PROPERTY PANTHERA_GPU_TESTS "")
function(panthera_write_gpu_programs)
  get_property(programs GLOBAL PROPERTY PANTHERA_GPU_PROGRAMS)
  get_property(tests GLOBAL PROPERTY PANTHERA_GPU_TESTS)
  set(lines)
  foreach(kind IN ITEMS program test)
    foreach(target IN LISTS ${kind}s)
      string(APPEND lines "${kind} $<TARGET_FILE:${target}>\n")
    endforeach()
  endforeach()
  file(GENERATE OUTPUT ${CMAKE_BINARY_DIR}/gpu_programs.txt CONTENT "${lines}")
  add_custom_target(gpu_programs DEPENDS ${programs} ${tests})
endfunction()

# panthera_test(NAME SOURCES file... [LINK lib...] [RANKS n...] [TIMEOUT seconds]): a GoogleTest
# binary and its CTest entries. With RANKS the binary runs once under mpirun for each n, as n
# processes; without, each of its tests is a CTest entry of its own. Both run in
# PANTHERA_TEST_ENVIRONMENT, a list of NAME=VALUE.
function(panthera_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;LINK;RANKS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE panthera_options ${ARG_LINK} panthera_test_support
                                        GTest::gmock)
  if(NOT ARG_RANKS)
    foreach(source IN LISTS ARG_SOURCES)
      panthera_uses_gpu(uses_gpu ${source})
      if(uses_gpu)
        set_property(GLOBAL APPEND PROPERTY PANTHERA_GPU_TESTS ${name})
        break()
      endif()
    endforeach()
  endif()
  if(ARG_RANKS)
    target_link_libraries(${name} PRIVATE panthera_mpi_test_main)
    foreach(ranks IN LISTS ARG_RANKS)
      add_test(NAME ${name}.ranks${ranks}
               COMMAND ${MPIEXEC_EXECUTABLE} -n ${ranks} $<TARGET_FILE:${name}>)
      set_tests_properties(
        ${name}.ranks${ranks} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS mpi PROCESSORS 2
                                         ENVIRONMENT
                                         "${PANTHERA_TEST_ENVIRONMENT};OMP_NUM_THREADS=1")
    endforeach()
  else()
    target_link_libraries(${name} PRIVATE GTest::gtest_main)
    gtest_discover_tests(
      ${name}
      NO_PRETTY_VALUES
      DISCOVERY_TIMEOUT 120
      PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS unit)
    # gtest_discover_tests cannot pass a list as a property; CTest reads this file after its own.
    set(environment_file ${CMAKE_CURRENT_BINARY_DIR}/${name}_environment.cmake)
    file(WRITE ${environment_file}
         "foreach(test IN LISTS ${name}_TESTS)\n"
         "  set_tests_properties(\"\${test}\" PROPERTIES ENVIRONMENT "
         "[==[${PANTHERA_TEST_ENVIRONMENT}]==])\n"
         "endforeach()\n")
    set_property(DIRECTORY APPEND PROPERTY TEST_INCLUDE_FILES ${environment_file})
  endif()
endfunction()
