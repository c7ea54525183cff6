#include "runtime/checkpoint/retention.h"

#include <algorithm>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace panthera {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

StoredCheckpoint Good(int64_t step) { return {step, true, true}; }
StoredCheckpoint NotFinite(int64_t step) { return {step, true, false}; }
StoredCheckpoint Damaged(int64_t step) { return {step, false, false}; }

using Stored = std::vector<StoredCheckpoint>;

TEST(RetentionTest, KeepsTheNewest) {
  const Stored stored = {Good(50), Good(40), Good(30), Good(20)};

  EXPECT_THAT(StepsToRemove(stored, {.keep_newest = 1}), ElementsAre(40, 30, 20));
  EXPECT_THAT(StepsToRemove(stored, {.keep_newest = 3}), ElementsAre(20));
  EXPECT_THAT(StepsToRemove(stored, {.keep_newest = 9}), IsEmpty());
}

TEST(RetentionTest, ZeroKeepsAll) {
  const Stored stored = {Good(50), Good(40), Damaged(30)};

  EXPECT_THAT(StepsToRemove(stored, {.keep_newest = 0}), IsEmpty());
}

TEST(RetentionTest, MultiplesStayForEver) {
  const Stored stored = {Good(50), Good(40), Good(30), Good(20), Good(10)};

  EXPECT_THAT(StepsToRemove(stored, {.keep_newest = 1, .keep_every = 20}), ElementsAre(30, 10));
}

TEST(RetentionTest, TheLastFiniteOneStays) {
  const Stored stored = {NotFinite(50), NotFinite(40), Good(30), Good(20)};

  EXPECT_THAT(StepsToRemove(stored, {.keep_newest = 1}), ElementsAre(40, 20));
}

TEST(RetentionTest, DamagedOnesDoNotCountAsKept) {
  const Stored stored = {Good(50), Damaged(40), Good(30), Good(20)};

  EXPECT_THAT(StepsToRemove(stored, {.keep_newest = 2}), ElementsAre(40, 20));
}

// All of valid, damaged and not finite, in up to five checkpoints, under all options.
TEST(RetentionTest, NoHistoryEverLosesTheNewestValidOrTheLastFiniteOne) {
  for (int history = 0; history < 3 * 3 * 3 * 3 * 3; ++history) {
    Stored stored;
    for (int64_t i = 0, rest = history; i < 5; ++i, rest /= 3) {
      stored.push_back({50 - 10 * i, rest % 3 != 0, rest % 3 == 2});
    }
    for (const RetentionOptions& options :
         {RetentionOptions{1, 0}, {2, 0}, {3, 0}, {1, 20}, {2, 30}}) {
      const std::vector<int64_t> removed = StepsToRemove(stored, options);
      const auto stays = [&](const StoredCheckpoint& checkpoint) {
        return std::find(removed.begin(), removed.end(), checkpoint.step) == removed.end();
      };
      int64_t num_valid = 0;
      bool found_finite = false;
      for (const StoredCheckpoint& checkpoint : stored) {
        const bool must_stay =
            (checkpoint.valid && num_valid < options.keep_newest) ||
            (checkpoint.finite && !found_finite) ||
            (options.keep_every > 0 && checkpoint.step % options.keep_every == 0);
        EXPECT_TRUE(stays(checkpoint) || !must_stay)
            << "step " << checkpoint.step << " of history " << history;
        num_valid += checkpoint.valid ? 1 : 0;
        found_finite = found_finite || checkpoint.finite;
      }
    }
  }
}

TEST(RetentionTest, TheNewestValidOneStaysUnderDamagedOnes) {
  const Stored stored = {Damaged(50), Damaged(40), Good(30), Good(20)};

  EXPECT_THAT(StepsToRemove(stored, {.keep_newest = 1}), ElementsAre(20));
  EXPECT_THAT(StepsToRemove(Stored{Damaged(50), Damaged(40)}, {.keep_newest = 1}), IsEmpty());
}

}  // namespace
}  // namespace panthera
