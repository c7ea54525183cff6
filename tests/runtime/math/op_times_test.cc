#include "runtime/math/op_times.h"

#include <chrono>
#include <set>

#include <gtest/gtest.h>

#include "runtime/math/context.h"
#include "runtime/math/vector_ops.h"
#include "tests/support/devices.h"
#include "tests/support/random_tensor.h"

namespace panthera {
namespace {

using testing::MetaTensor;

// Lets at least this much time pass.
void Spin(std::chrono::milliseconds duration) {
  const auto end = std::chrono::steady_clock::now() + duration;
  while (std::chrono::steady_clock::now() < end) {
  }
}

class OpTimesTest : public ::testing::Test {
 protected:
  MemoryLedger ledger_;
  Context ctx_{{DeviceKind::kCpu, 0}, ledger_, 0};
  OpTimes times_;
};

TEST_F(OpTimesTest, NothingIsCountedUnlessSomebodyMeasures) {
  { const OpTimer timer(ctx_, {Op::kNorm}, {.bytes = 5}); }
  ctx_.set_op_times(&times_);
  ctx_.set_op_times(nullptr);
  { const OpTimer timer(ctx_, {Op::kNorm}, {.bytes = 5}); }
  EXPECT_EQ(times_.at({Op::kNorm}).calls, 0);
  EXPECT_EQ(times_.total_seconds(), 0);
}

TEST_F(OpTimesTest, CallsAndWorkAddUpByOpAndPass) {
  ctx_.set_op_times(&times_);
  for (int i = 0; i < 3; ++i) {
    const OpTimer timer(ctx_, {Op::kQkv, OpPass::kBackward}, {.flops = 7, .bytes = 2});
  }
  { const OpTimer timer(ctx_, {Op::kQkv}, {.flops = 1}); }
  const OpTimes::Entry& backward = times_.at({Op::kQkv, OpPass::kBackward});
  EXPECT_EQ(backward.calls, 3);
  EXPECT_EQ(backward.work.flops, 21);
  EXPECT_EQ(backward.work.bytes, 6);
  EXPECT_EQ(times_.at({Op::kQkv}).calls, 1);
  EXPECT_EQ(times_.at({Op::kQkv, OpPass::kWeightGradient}).calls, 0);
  times_.Clear();
  EXPECT_EQ(times_.at({Op::kQkv, OpPass::kBackward}).calls, 0);
}

TEST_F(OpTimesTest, TimeInAnInnerScopeIsTheInnerOpsAlone) {
  ctx_.set_op_times(&times_);
  const auto begin = std::chrono::steady_clock::now();
  {
    const OpTimer outer(ctx_, {Op::kUpdate}, {});
    {
      const OpTimer inner(ctx_, {Op::kFold}, {});
      Spin(std::chrono::milliseconds(30));
    }
    { const OpTimer second(ctx_, {Op::kPublish}, {}); }
    Spin(std::chrono::milliseconds(2));
  }
  const double all =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  EXPECT_GE(times_.at({Op::kFold}).seconds, 0.030);
  EXPECT_GE(times_.at({Op::kUpdate}).seconds, 0.002);
  // Counted twice, the inner 30 ms would make the sum larger than the time that passed.
  EXPECT_LE(times_.total_seconds(), all);
}

TEST_F(OpTimesTest, AScopeAfterANestedPairIsOutermostAgain) {
  ctx_.set_op_times(&times_);
  {
    const OpTimer outer(ctx_, {Op::kUpdate}, {});
    const OpTimer inner(ctx_, {Op::kFold}, {});
  }
  const double before = times_.at({Op::kUpdate}).seconds;
  {
    const OpTimer timer(ctx_, {Op::kData}, {});
    Spin(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(times_.at({Op::kUpdate}).seconds, before);
  EXPECT_GE(times_.at({Op::kData}).seconds, 0.001);
}

TEST_F(OpTimesTest, ClearForgetsAlsoWhatWasNotCollected) {
  for (const Device device : testing::ComputeDevices()) {
    const testing::TensorsOn memory(device);
    Context ctx(device, ledger_, 0);
    const testing::HostTensor x({int64_t{1} << 16}, DType::kF32);
    ctx.set_op_times(&times_);
    const auto zero = [&] {
      const OpTimer timer(ctx, {Op::kNorm}, {.bytes = 3});
      SetZero(ctx, x);
    };
    zero();
    times_.Clear();
    times_.Collect();
    EXPECT_EQ(times_.at({Op::kNorm}).calls, 0);
    EXPECT_EQ(times_.total_seconds(), 0);
    zero();
    times_.Collect();
    EXPECT_EQ(times_.at({Op::kNorm}).calls, 1);
    EXPECT_GT(times_.at({Op::kNorm}).seconds, 0);
    times_.Clear();
  }
}

TEST_F(OpTimesTest, CollectingInsideAnOpIsRefused) {
  ctx_.set_op_times(&times_);
  const OpTimer timer(ctx_, {Op::kNorm}, {});
  EXPECT_DEATH(times_.Collect(), "inside an op");
}

TEST(OpNameTest, EveryKindHasANameOfItsOwn) {
  std::set<std::string> names;
  for (int op = 0; op < kNumOps; ++op) {
    for (int pass = 0; pass < kNumOpPasses; ++pass) {
      names.insert(Name({static_cast<Op>(op), static_cast<OpPass>(pass)}));
    }
  }
  EXPECT_EQ(names.size(), static_cast<size_t>(kNumOps) * kNumOpPasses);
  EXPECT_EQ(Name({Op::kSwiGlu, OpPass::kBackward}), "swiglu backward");
  EXPECT_EQ(Name({Op::kPublish}), "publish");
}

TEST(OpTrafficTest, CountsTheBytesOfEveryTensor) {
  EXPECT_EQ(Traffic({MetaTensor({3, 4}, DType::kBF16), MetaTensor({5}, DType::kF32)}), 44);
}

}  // namespace
}  // namespace panthera
