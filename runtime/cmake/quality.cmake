# Targets that keep the code in shape: `format` rewrites, `format-check` only looks, `lint` runs
# clang-tidy. They exist where the pinned version of the tool is installed.

file(GLOB_RECURSE first_party CONFIGURE_DEPENDS
     ${CMAKE_SOURCE_DIR}/runtime/*.h ${CMAKE_SOURCE_DIR}/runtime/*.cc
     ${CMAKE_SOURCE_DIR}/runtime/*.cu ${CMAKE_SOURCE_DIR}/runtime/*.cuh
     ${CMAKE_SOURCE_DIR}/model/*.h ${CMAKE_SOURCE_DIR}/model/*.cc
     ${CMAKE_SOURCE_DIR}/model/*.cu ${CMAKE_SOURCE_DIR}/model/*.cuh
     ${CMAKE_SOURCE_DIR}/optim/*.h ${CMAKE_SOURCE_DIR}/optim/*.cc
     ${CMAKE_SOURCE_DIR}/optim/*.cu ${CMAKE_SOURCE_DIR}/optim/*.cuh
     ${CMAKE_SOURCE_DIR}/launcher/*.h ${CMAKE_SOURCE_DIR}/launcher/*.cc
     ${CMAKE_SOURCE_DIR}/tests/*.h ${CMAKE_SOURCE_DIR}/tests/*.cc
     ${CMAKE_SOURCE_DIR}/tests/*.cu ${CMAKE_SOURCE_DIR}/tests/*.cuh)

find_program(CLANG_FORMAT clang-format-14)
if(CLANG_FORMAT)
  add_custom_target(
    format
    COMMAND ${CLANG_FORMAT} -i ${first_party}
    VERBATIM)
  add_custom_target(
    format-check
    COMMAND ${CLANG_FORMAT} --dry-run -Werror ${first_party}
    VERBATIM)
endif()

find_program(CLANG_TIDY clang-tidy-19)
find_program(RUN_CLANG_TIDY run-clang-tidy-19)
# g++ has an <omp.h> of its own, which clang cannot read.
file(GLOB clang_omp_header /usr/lib/llvm-*/lib/clang/*/include/omp.h)
if(CLANG_TIDY AND RUN_CLANG_TIDY AND clang_omp_header)
  list(GET clang_omp_header -1 clang_omp_header)
  get_filename_component(clang_omp_folder ${clang_omp_header} DIRECTORY)
  # Looks at the sources that are built, through compile_commands.json, and at the headers they
  # include.
  add_custom_target(
    lint
    COMMAND ${RUN_CLANG_TIDY} -quiet -clang-tidy-binary ${CLANG_TIDY} -p ${CMAKE_BINARY_DIR}
            -extra-arg=-idirafter${clang_omp_folder}
            "-header-filter=^${CMAKE_SOURCE_DIR}/(runtime|model|optim|launcher|tests)/"
            "^${CMAKE_SOURCE_DIR}/(runtime|model|optim|launcher|tests)/"
    VERBATIM USES_TERMINAL)
endif()
