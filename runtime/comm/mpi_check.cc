#include "runtime/comm/mpi_check.h"

#include <mpi.h>

#include <string>

#include "runtime/base/log.h"
#include "runtime/comm/mpi_runtime.h"

namespace panthera::internal {

void CheckMpi(int code, const char* call, const char* file, int line) {
  if (code == MPI_SUCCESS) {
    return;
  }
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  if (MPI_Error_string(code, text, &length) != MPI_SUCCESS) {
    length = 0;
  }
  LOG(ERROR) << file << ":" << line << ": " << call
             << " failed: " << std::string(text, static_cast<size_t>(length)) << " (MPI error "
             << code << "); a peer or the network between hosts is gone";
  MpiRuntime::Abort(MpiRuntime::kMpiFailureExitCode);
}

}  // namespace panthera::internal
