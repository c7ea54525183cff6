#include "tests/bench/kernel_timer.h"

#include <cstdint>

#include <gtest/gtest.h>

#include "runtime/device/memory_ledger.h"
#include "tests/support/devices.h"

namespace panthera::bench {
namespace {

using Kind = KernelCall::Output::Kind;

constexpr TimingPlan kPlan{
    .rotation_bytes = 1 << 20, .warm_ups = 3, .batches = 5, .batch_seconds = 0};

class KernelTimerTest : public ::testing::TestWithParam<Device> {
 protected:
  KernelTimerTest() : ctx_(GetParam(), ledger_, 0) {}

  // A kernel that copies the first `copied` of 64 elements.
  KernelCase CopyOfSome(int64_t copied, Kind kind = Kind::kOverwritten) {
    return {.kernel = "copy",
            .shape = "64",
            .work = {},
            .make = [this, copied, kind](Context& ctx, Operands& operands) -> KernelCall {
              ++sets_;
              const Tensor from = operands.Noise({64}, DType::kF32);
              const Tensor to = operands.Poisoned({64}, DType::kF32);
              return {[this, &ctx, copied, from, to] {
                        ++calls_;
                        Copy(ctx.compute(), from.Slice(0, copied), to.Slice(0, copied));
                      },
                      {{to, kind}}};
            }};
  }

  MemoryLedger ledger_;
  Context ctx_;
  int64_t sets_ = 0;
  int64_t calls_ = 0;
};

INSTANTIATE_TEST_SUITE_P(Devices, KernelTimerTest, ::testing::ValuesIn(testing::ComputeDevices()),
                         testing::DeviceName);

TEST_P(KernelTimerTest, SeesThatAllOfAnOutputIsWritten) {
  EXPECT_TRUE(MeasureKernel(ctx_, CopyOfSome(64), kPlan).is_written);
}

TEST_P(KernelTimerTest, FindsOneElementThatIsNotWritten) {
  EXPECT_FALSE(MeasureKernel(ctx_, CopyOfSome(63), kPlan).is_written);
}

TEST_P(KernelTimerTest, AskedForAChangeTakesAnyAndMissesNone) {
  EXPECT_TRUE(MeasureKernel(ctx_, CopyOfSome(1, Kind::kChanged), kPlan).is_written);
  EXPECT_FALSE(MeasureKernel(ctx_, CopyOfSome(0, Kind::kChanged), kPlan).is_written);
}

TEST_P(KernelTimerTest, CountsTheCallsThatItMeasures) {
  const KernelTime time = MeasureKernel(ctx_, CopyOfSome(64), kPlan);
  EXPECT_EQ(time.calls, kPlan.batches);
  // And one to look at the outputs.
  EXPECT_EQ(calls_, 1 + kPlan.warm_ups + kPlan.batches);
  EXPECT_GT(time.seconds, 0);
  EXPECT_GE(time.spread_seconds, 0);
}

TEST_P(KernelTimerTest, TakesAsManySetsAsFillTheRotationWithinBounds) {
  MeasureKernel(ctx_, CopyOfSome(64),
                {.rotation_bytes = 1, .warm_ups = 1, .batches = 1, .batch_seconds = 0});
  EXPECT_EQ(sets_, 2);
  sets_ = 0;
  MeasureKernel(
      ctx_, CopyOfSome(64),
      {.rotation_bytes = 5 * 2 * 64 * 4, .warm_ups = 1, .batches = 1, .batch_seconds = 0});
  EXPECT_EQ(sets_, 5);
  sets_ = 0;
  MeasureKernel(ctx_, CopyOfSome(64),
                {.rotation_bytes = 1 << 30, .warm_ups = 1, .batches = 1, .batch_seconds = 0});
  EXPECT_EQ(sets_, 8);
}

// The period of noise, and a little more than one block of what is read back.
TEST_P(KernelTimerTest, LongTensorsAreFilledToTheirEnd) {
  Operands operands(ctx_);
  const int64_t elements = (int64_t{9} << 20) + 3;
  const Tensor noise = operands.Noise({elements}, DType::kF32);
  EXPECT_TRUE(IsWritten(ctx_, noise));
  const Tensor poisoned = operands.Poisoned({elements}, DType::kF32);
  EXPECT_FALSE(IsWritten(ctx_, poisoned.Slice(elements - 1, elements)));
  EXPECT_NE(Checksum(ctx_, noise.Slice(0, elements - 1)), Checksum(ctx_, noise.Slice(1, elements)));
}

}  // namespace
}  // namespace panthera::bench
