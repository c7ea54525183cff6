# Writes launcher/version.h into the build tree. A new commit configures again; nothing else does,
# and an unchanged header is not rewritten.

function(panthera_git output)
  execute_process(
    COMMAND ${GIT_EXECUTABLE} ${ARGN}
    WORKING_DIRECTORY ${CMAKE_SOURCE_DIR}
    OUTPUT_VARIABLE text
    ERROR_QUIET
    OUTPUT_STRIP_TRAILING_WHITESPACE)
  set(${output} ${text} PARENT_SCOPE)
endfunction()

set(PANTHERA_VERSION ${PROJECT_VERSION})
find_package(Git QUIET)
# A source archive unpacked inside somebody else's checkout has no commit of its own.
if(GIT_FOUND AND EXISTS ${CMAKE_SOURCE_DIR}/.git)
  panthera_git(commit rev-parse --short=12 HEAD)
  if(commit)
    string(APPEND PANTHERA_VERSION " (${commit})")
  endif()
  # Written whenever the checkout's commit changes.
  panthera_git(head_log rev-parse --path-format=absolute --git-path logs/HEAD)
  if(head_log AND EXISTS ${head_log})
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${head_log})
  endif()
endif()
configure_file(${CMAKE_CURRENT_LIST_DIR}/version.h.in ${CMAKE_BINARY_DIR}/launcher/version.h @ONLY)
