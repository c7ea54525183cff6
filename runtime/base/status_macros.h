// Early return of a failed absl::Status.
#ifndef PANTHERA_RUNTIME_BASE_STATUS_MACROS_H_
#define PANTHERA_RUNTIME_BASE_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define RETURN_IF_ERROR(expression)                                           \
  do {                                                                        \
    if (absl::Status panthera_status = (expression); !panthera_status.ok()) { \
      return panthera_status;                                                 \
    }                                                                         \
  } while (false)

#define PANTHERA_CONCAT_INNER(a, b) a##b
#define PANTHERA_CONCAT(a, b) PANTHERA_CONCAT_INNER(a, b)

// ASSIGN_OR_RETURN(auto value, Function()): declares or assigns `value`, or returns the error.
#define ASSIGN_OR_RETURN(declaration, expression) \
  PANTHERA_ASSIGN_OR_RETURN(PANTHERA_CONCAT(panthera_status_or_, __LINE__), declaration, expression)
#define PANTHERA_ASSIGN_OR_RETURN(status_or, declaration, expression) \
  auto status_or = (expression);                                      \
  if (!status_or.ok()) {                                              \
    return std::move(status_or).status();                             \
  }                                                                   \
  declaration = *std::move(status_or)

#endif  // PANTHERA_RUNTIME_BASE_STATUS_MACROS_H_
