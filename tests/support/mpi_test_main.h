// The ranks of test binaries that run under mpirun (panthera_test with RANKS). All ranks run the
// same tests in the same order. Rank 0 reports as GoogleTest does, the others print their failures;
// the exit code of every rank is 1 if a test failed on any.
//
// A failed ASSERT would leave the other ranks waiting, so it ends the job, as does a test that
// takes longer than the time allowed to each.
#ifndef PANTHERA_TESTS_SUPPORT_MPI_TEST_MAIN_H_
#define PANTHERA_TESTS_SUPPORT_MPI_TEST_MAIN_H_

#include "runtime/comm/mpi_runtime.h"
#include "tests/support/rank_harness.h"

namespace panthera::testing {

const MpiRuntime& MpiTestRuntime();
// This process as a rank of the whole job.
RankWorld& MpiTestWorld();

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_SUPPORT_MPI_TEST_MAIN_H_
