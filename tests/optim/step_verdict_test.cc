#include "optim/step_verdict.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

namespace panthera {
namespace {

TEST(ClipScaleTest, LeavesSmallGradientsUnchanged) {
  EXPECT_EQ(ClipScale(0, 1), 1);
  EXPECT_EQ(ClipScale(0.5, 1), 1);
  EXPECT_EQ(ClipScale(1, 1), 1);
}

TEST(ClipScaleTest, BringsLargeGradientsToTheLimit) {
  EXPECT_EQ(ClipScale(4, 1), 0.25F);
  EXPECT_EQ(ClipScale(10, 2.5), 0.25F);
}

TEST(ClipScaleTest, ZeroMeansNoClipping) { EXPECT_EQ(ClipScale(1e30, 0), 1); }

TEST(ClipScaleTest, NonFiniteNormsDoNotPassForSmallOnes) {
  EXPECT_TRUE(std::isnan(ClipScale(std::nan(""), 1)));
  EXPECT_EQ(ClipScale(std::numeric_limits<double>::infinity(), 1), 0);
}

}  // namespace
}  // namespace panthera
