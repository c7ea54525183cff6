#include "runtime/comm/nccl_environment.h"

#include <cstdlib>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace panthera {
namespace {

using ::testing::Contains;
using ::testing::Not;
using Variable = EnvironmentVariable;

TEST(NcclSharedGpuEnvironmentTest, FromVersion230OnOneVariablePermitsIt) {
  for (const int version : {23000, 23003, 23100}) {
    EXPECT_EQ(NcclSharedGpuEnvironment(version, 3, JobSpan::kOneHost),
              (std::vector<Variable>{{"NCCL_MAX_CTAS", "4"}, {"NCCL_MULTI_RANK_GPU_ENABLE", "1"}}));
  }
}

TEST(NcclSharedGpuEnvironmentTest, BeforeThatEveryRankIsAHostOfItsOwn) {
  const std::vector<Variable> third = NcclSharedGpuEnvironment(22907, 3, JobSpan::kOneHost);
  EXPECT_THAT(third, Contains(Variable{"NCCL_HOSTID", "panthera-rank-3"}));
  EXPECT_THAT(third, Contains(Variable{"NCCL_NET", "Socket"}));
  EXPECT_THAT(third, Not(Contains(Variable{"NCCL_MULTI_RANK_GPU_ENABLE", "1"})));
  EXPECT_THAT(NcclSharedGpuEnvironment(22907, 4, JobSpan::kOneHost),
              Contains(Variable{"NCCL_HOSTID", "panthera-rank-4"}));
}

TEST(NcclSharedGpuEnvironmentTest, LoopBackIsForRanksOfOneHostOnly) {
  const Variable loop_back{"NCCL_SOCKET_IFNAME", "lo"};
  EXPECT_THAT(NcclSharedGpuEnvironment(22809, 0, JobSpan::kOneHost), Contains(loop_back));
  EXPECT_THAT(NcclSharedGpuEnvironment(22809, 0, JobSpan::kManyHosts), Not(Contains(loop_back)));
}

TEST(SetMissingTest, LeavesWhatTheUserHasSet) {
  ASSERT_EQ(setenv("PANTHERA_TEST_SET", "mine", 1), 0);
  ASSERT_EQ(unsetenv("PANTHERA_TEST_UNSET"), 0);
  SetMissing({{"PANTHERA_TEST_SET", "other"}, {"PANTHERA_TEST_UNSET", "new"}});
  EXPECT_EQ(std::string(getenv("PANTHERA_TEST_SET")), "mine");
  EXPECT_EQ(std::string(getenv("PANTHERA_TEST_UNSET")), "new");
}

}  // namespace
}  // namespace panthera
