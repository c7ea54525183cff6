#include "runtime/params/gradient_sink.h"

#include <vector>

#include <gtest/gtest.h>

namespace panthera {
namespace {

// Hands out fixed targets.
class FixedSink final : public GradientSink {
 public:
  GradientTarget Target(ParamId id) override { return targets.at(static_cast<size_t>(id.index)); }
  void GroupComplete(GroupId /*group*/) override {}

  std::vector<GradientTarget> targets;
};

Tensor At(std::vector<float>& memory, size_t begin, const Shape& shape) {
  return {memory.data() + begin, shape, DType::kF32, Device{}};
}

TEST(FusedTargetTest, JoinsAllRows) {
  std::vector<float> memory(24);
  FixedSink sink;
  sink.targets = {{At(memory, 0, {2, 4}), Accumulate::kAdd},
                  {At(memory, 8, {1, 4}), Accumulate::kAdd},
                  {At(memory, 12, {3, 4}), Accumulate::kAdd}};
  const ParamId ids[] = {{0}, {1}, {2}};
  const GradientTarget fused = FusedTarget(sink, ids);
  EXPECT_EQ(fused.gradient.shape(), (Shape{6, 4}));
  EXPECT_EQ(fused.gradient.data<float>(), memory.data());
  EXPECT_EQ(fused.accumulate, Accumulate::kAdd);
}

TEST(FusedTargetTest, OneParameterIsItself) {
  std::vector<float> memory(8);
  FixedSink sink;
  sink.targets = {{At(memory, 0, {2, 4}), Accumulate::kOverwrite}};
  const ParamId ids[] = {{0}};
  const GradientTarget fused = FusedTarget(sink, ids);
  EXPECT_EQ(fused.gradient.shape(), (Shape{2, 4}));
  EXPECT_EQ(fused.accumulate, Accumulate::kOverwrite);
}

TEST(FusedTargetDeathTest, RefusesGapsOtherWidthsAndMixedAccumulation) {
  std::vector<float> memory(24);
  const ParamId ids[] = {{0}, {1}};
  FixedSink sink;
  sink.targets = {{At(memory, 0, {2, 4}), Accumulate::kAdd},
                  {At(memory, 12, {2, 4}), Accumulate::kAdd}};
  EXPECT_DEATH(FusedTarget(sink, ids), "next to each other");
  sink.targets[1] = {At(memory, 8, {4, 2}), Accumulate::kAdd};
  EXPECT_DEATH(FusedTarget(sink, ids), "one width");
  sink.targets[1] = {At(memory, 8, {2, 4}), Accumulate::kOverwrite};
  EXPECT_DEATH(FusedTarget(sink, ids), "always written together");
}

}  // namespace
}  // namespace panthera
