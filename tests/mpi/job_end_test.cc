// Tests that must fail, each in a way of its own on the last rank. CTest runs them one at a time
// under mpirun and expects the exit code that is written beside them in CMakeLists.txt.
#include "gtest/gtest.h"

#include "runtime/comm/mpi_check.h"
#include "tests/support/mpi_test_main.h"

namespace panthera::testing {
namespace {

bool OnLastRank() { return MpiTestWorld().rank() == MpiTestWorld().size() - 1; }

TEST(JobEndTest, FailedExpectationOnOneRankFailsAllRanks) {
  EXPECT_FALSE(OnLastRank());
  MpiTestWorld().Meet();
}

TEST(JobEndTest, FailedAssertionEndsRanksThatWait) {
  ASSERT_FALSE(OnLastRank());
  MpiTestWorld().Meet();
}

TEST(JobEndTest, AbortEndsRanksThatWait) {
  if (OnLastRank()) {
    MpiTestRuntime().Abort(7);
  }
  MpiTestWorld().Meet();
}

TEST(JobEndTest, FailedMpiCallEndsRanksThatWait) {
  if (OnLastRank()) {
    internal::CheckMpi(/*code=*/2, "MPI_Bcast(...)", __FILE__, __LINE__);
  }
  MpiTestWorld().Meet();
}

}  // namespace
}  // namespace panthera::testing
