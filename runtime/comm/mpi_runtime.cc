#include "runtime/comm/mpi_runtime.h"

#include <mpi.h>

#include <chrono>
#include <cstdlib>
#include <thread>

#include "runtime/base/check.h"
#include "runtime/comm/mpi_check.h"

namespace panthera {
namespace {

// What MPI_Abort gets before this process ends without it.
constexpr std::chrono::seconds kAbortPatience(5);

// The ranks of this host, to be freed.
MPI_Comm SplitByHost(int rank) {
  MPI_Comm host = MPI_COMM_NULL;
  CHECK_MPI(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &host));
  return host;
}

}  // namespace

MpiRuntime::MpiRuntime() {
  int initialized = 0;
  CHECK_MPI(MPI_Initialized(&initialized));
  CHECK_EQ(initialized, 0) << "one MpiRuntime per process";
  // Several threads may call MPI: a watchdog aborts while another thread waits for peers.
  int provided = MPI_THREAD_SINGLE;
  CHECK_MPI(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided));
  CHECK_EQ(provided, MPI_THREAD_MULTIPLE) << "this MPI library was built without threads";
  // Communicators made from this one inherit the handler.
  CHECK_MPI(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
  CHECK_MPI(MPI_Comm_rank(MPI_COMM_WORLD, &rank_));
  CHECK_MPI(MPI_Comm_size(MPI_COMM_WORLD, &size_));
  MPI_Comm host = SplitByHost(rank_);
  CHECK_MPI(MPI_Comm_rank(host, &local_rank_));
  CHECK_MPI(MPI_Comm_size(host, &local_size_));
  CHECK_MPI(MPI_Comm_free(&host));
}

MpiRuntime::~MpiRuntime() { CHECK_MPI(MPI_Finalize()); }

void MpiRuntime::SumOverHost(std::vector<int32_t>& values) const {
  MPI_Comm host = SplitByHost(rank_);
  CHECK_MPI(MPI_Allreduce(MPI_IN_PLACE, values.data(), static_cast<int>(values.size()), MPI_INT32_T,
                          MPI_SUM, host));
  CHECK_MPI(MPI_Comm_free(&host));
}

void MpiRuntime::Abort(int exit_code) {
  int initialized = 0;
  int finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  if (initialized != 0 && finalized == 0) {
    // In a thread of its own: MPI may be stuck, or its launcher may not answer.
    std::thread([exit_code] { MPI_Abort(MPI_COMM_WORLD, exit_code); }).detach();
    std::this_thread::sleep_for(kAbortPatience);
  }
  std::_Exit(exit_code);
}

}  // namespace panthera
