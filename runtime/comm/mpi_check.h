#ifndef PANTHERA_RUNTIME_COMM_MPI_CHECK_H_
#define PANTHERA_RUNTIME_COMM_MPI_CHECK_H_

namespace panthera::internal {

// Returns if `code` is MPI_SUCCESS; otherwise prints place, call and MPI's own text, and ends the
// job with MpiRuntime::kMpiFailureExitCode.
void CheckMpi(int code, const char* call, const char* file, int line);

}  // namespace panthera::internal

// Every MPI function is called through this.
#define CHECK_MPI(call) ::panthera::internal::CheckMpi((call), #call, __FILE__, __LINE__)

#endif  // PANTHERA_RUNTIME_COMM_MPI_CHECK_H_
