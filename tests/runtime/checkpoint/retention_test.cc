#include "runtime/checkpoint/retention.h"

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

TEST(RetentionTest, TheNewestValidOneStaysUnderDamagedOnes) {
  const Stored stored = {Damaged(50), Damaged(40), Good(30), Good(20)};

  EXPECT_THAT(StepsToRemove(stored, {.keep_newest = 1}), ElementsAre(20));
  EXPECT_THAT(StepsToRemove(Stored{Damaged(50), Damaged(40)}, {.keep_newest = 1}), IsEmpty());
}

}  // namespace
}  // namespace panthera
