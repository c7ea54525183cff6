#include "launcher/job_watch.h"

#include <gmock/gmock.h>

#include "launcher/exit_codes.h"

namespace panthera {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr double kLimit = 100;

Activity AtWork(int64_t beats) {
  return {.phase = Phase::kSaving, .step = 12, .calls = 36, .beats = beats};
}

Activity Waiting(int64_t beats, int64_t calls = 37) {
  return {.phase = Phase::kStep,
          .call = PeerCall::kAllGather,
          .step = 12,
          .calls = calls,
          .beats = beats};
}

TEST(JobWatchTest, RanksThatWaitAreWellAsLongAsAnotherWorks) {
  JobWatch watch(3);
  for (double now = 0; now < 10 * kLimit; now += 10) {
    watch.Report(0, Waiting(1), now);
    watch.Report(1, Waiting(1), now);
    watch.Report(2, AtWork(static_cast<int64_t>(now)), now);
    EXPECT_FALSE(watch.Judge(kLimit, now).has_value()) << now;
  }
}

TEST(JobWatchTest, SilentRankIsSuspectedBeforeAllOthers) {
  JobWatch watch(3);
  for (double now = 0; now <= kLimit + 20; now += 10) {
    watch.Report(0, Waiting(1), now);
    watch.Report(1, AtWork(1), now);
  }
  const std::optional<Verdict> verdict = watch.Judge(kLimit, kLimit + 21);
  ASSERT_TRUE(verdict.has_value());
  EXPECT_EQ(verdict->exit_code, kExitStalled);
  EXPECT_THAT(verdict->reason, HasSubstr("suspected: rank 2, which has not reported for 121 s"));
  EXPECT_THAT(verdict->reason, Not(HasSubstr("rank 1")));
}

TEST(JobWatchTest, RankAtWorkIsSuspectedWhenTheOthersWaitForIt) {
  JobWatch watch(2);
  for (double now = 0; now <= kLimit + 20; now += 10) {
    watch.Report(0, Waiting(1), now);
    watch.Report(1, AtWork(1), now);
  }
  const std::optional<Verdict> verdict = watch.Judge(kLimit, kLimit + 21);
  ASSERT_TRUE(verdict.has_value());
  EXPECT_THAT(verdict->reason,
              HasSubstr("suspected: rank 1, in save after step 12, at work after call 36"));
}

TEST(JobWatchTest, RankThatIsBehindIsSuspectedWhenAllWait) {
  JobWatch watch(3);
  watch.Report(0, Waiting(1, 37), kLimit);
  watch.Report(1, Waiting(1, 36), kLimit);
  watch.Report(2, Waiting(1, 37), kLimit);
  for (int rank = 0; rank < 3; ++rank) {
    watch.Report(rank, Waiting(1, rank == 1 ? 36 : 37), 2 * kLimit + 1);
  }
  const std::optional<Verdict> verdict = watch.Judge(kLimit, 2 * kLimit + 1);
  ASSERT_TRUE(verdict.has_value());
  EXPECT_THAT(verdict->reason, HasSubstr("suspected: rank 1, behind in step 12, waiting in "
                                         "all-gather (call 36)"));
}

TEST(JobWatchTest, ManySuspectsAreCountedNotListed) {
  const JobWatch watch(1000);
  const std::optional<Verdict> verdict = watch.Judge(kLimit, kLimit + 1);
  ASSERT_TRUE(verdict.has_value());
  EXPECT_THAT(verdict->reason, HasSubstr("rank 3, "));
  EXPECT_THAT(verdict->reason, HasSubstr(" and 996 more"));
  EXPECT_LT(verdict->reason.size(), 500u);
}

TEST(JobWatchTest, NoLimitMeansNoStall) {
  const JobWatch watch(2);
  EXPECT_FALSE(watch.Judge(0, 1e9).has_value());
  EXPECT_FALSE(JudgeAlone(0, 0, 0, 1e9).has_value());
}

TEST(JobWatchTest, DeadRankIsLeftToItsLauncherForAWhile) {
  JobWatch watch(2);
  watch.Lose(1, 10);
  EXPECT_FALSE(watch.Judge(0, 10 + kLauncherPatienceSeconds).has_value());
  const std::optional<Verdict> verdict = watch.Judge(0, 11 + kLauncherPatienceSeconds);
  ASSERT_TRUE(verdict.has_value());
  EXPECT_EQ(verdict->exit_code, kExitPeerLost);
  EXPECT_THAT(verdict->reason, HasSubstr("rank 1 has died"));
}

TEST(JobWatchTest, RankThatSaidGoodbyeMayGo) {
  JobWatch watch(2);
  watch.Leave(1);
  watch.Lose(1, 10);
  EXPECT_FALSE(watch.Judge(0, 1000).has_value());
}

TEST(JobWatchTest, RankBlamesRankZeroOnlyWhenItHearsNothing) {
  EXPECT_FALSE(JudgeAlone(kLimit, /*progressed=*/0, /*heard=*/150, /*now=*/200).has_value());
  EXPECT_FALSE(JudgeAlone(kLimit, /*progressed=*/150, /*heard=*/0, /*now=*/200).has_value());
  const std::optional<Verdict> verdict = JudgeAlone(kLimit, 0, 50, 200);
  ASSERT_TRUE(verdict.has_value());
  EXPECT_EQ(verdict->exit_code, kExitStalled);
  EXPECT_THAT(verdict->reason, HasSubstr("suspected: rank 0, which has not reported for 150 s"));
}

}  // namespace
}  // namespace panthera
