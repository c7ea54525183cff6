// Which kernels of attention work where, and those that only a GPU can run: Hopper's, and beside
// them on the same GPU the portable ones. The emulation runs the portable ones in tests/simt.
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "model/ops/attention_choice.h"
#include "model/ops/attention_cuda.h"
#include "runtime/device/cuda_device.h"
#include "runtime/device/memory_ledger.h"
#include "runtime/device/stream.h"
#include "runtime/math/context.h"
#include "tests/model/ops/attention_case.h"
#include "tests/model/ops/attention_checks.h"
#include "tests/support/devices.h"
#include "tests/support/random_tensor.h"
#include "tests/support/tensor_matchers.h"

namespace panthera::testing {
namespace {

using cuda::AttentionKernels;
using cuda::AttentionPlatform;
using cuda::KernelChoice;

constexpr AttentionPlatform kHopper{{9, 0}, AttentionPlatform::HopperKernels::kBuilt};

AttentionKernels Choose(const Heads& q, const Heads& k, const Heads& v,
                        const AttentionPlatform& platform) {
  const AttentionBand band{.q = q, .k = k};
  return cuda::ChooseAttentionKernels({&band, 1}, {&v}, platform);
}
AttentionKernels Choose(const Heads& x, const AttentionPlatform& platform) {
  return Choose(x, x, x, platform);
}

TEST(AttentionChoiceTest, HopperKernelsNeedTheirGpuTheirBuildAndNoOtherWish) {
  const Tensor x = MetaTensor({1, 4, 2, 64}, DType::kBF16);
  EXPECT_EQ(Choose(x, kHopper), AttentionKernels::kHopper);
  for (const cuda::ComputeCapability other :
       {cuda::ComputeCapability{8, 0}, {8, 9}, {10, 0}, {12, 0}}) {
    AttentionPlatform platform = kHopper;
    platform.capability = other;
    EXPECT_EQ(Choose(x, platform), AttentionKernels::kTensorCores) << other.major;
  }
  AttentionPlatform platform = kHopper;
  platform.hopper = AttentionPlatform::HopperKernels::kAbsent;
  EXPECT_EQ(Choose(x, platform), AttentionKernels::kTensorCores);
  platform = kHopper;
  platform.choice = KernelChoice::kPortable;
  EXPECT_EQ(Choose(x, platform), AttentionKernels::kTensorCores);
}

TEST(AttentionChoiceTest, OneTensorThatTensorCoresCannotReadSendsAllToTheRows) {
  const Tensor good = MetaTensor({1, 4, 2, 64}, DType::kBF16);
  const Tensor wide = MetaTensor({1, 4, 2, 128}, DType::kBF16);
  EXPECT_EQ(Choose(wide, kHopper), AttentionKernels::kHopper);
  for (const int64_t width : {32, 72, 192, 256}) {
    const Tensor odd = MetaTensor({1, 4, 2, width}, DType::kBF16);
    EXPECT_EQ(Choose(odd, kHopper), AttentionKernels::kRows) << width;
  }
  const Tensor fp32 = MetaTensor({1, 4, 2, 64}, DType::kF32);
  EXPECT_EQ(Choose(fp32, kHopper), AttentionKernels::kRows);
  // Rows of 129 elements, and rows that begin 2 bytes late.
  const Heads odd_rows = Heads::Columns(MetaTensor({4, 129}, DType::kBF16), 1, 0, 2, 64);
  const Heads late = Heads::Columns(MetaTensor({4, 136}, DType::kBF16), 1, 1, 2, 64);
  for (const Heads& odd : {odd_rows, late}) {
    EXPECT_EQ(Choose(odd, good, good, kHopper), AttentionKernels::kRows);
    EXPECT_EQ(Choose(good, odd, good, kHopper), AttentionKernels::kRows);
    EXPECT_EQ(Choose(good, good, odd, kHopper), AttentionKernels::kRows);
  }
}

TEST(AttentionChoiceTest, SequencesBeyondTheReachOfBulkCopiesGoToThePortableKernels) {
  const int64_t row_bytes = int64_t{1} << 14;
  const int64_t tokens = (int64_t{1} << 40) / row_bytes;
  const auto of = [&](int64_t length) {
    const Tensor x = MetaTensor({1, length, row_bytes / 2 / 64, 64}, DType::kBF16);
    return Choose(x, kHopper);
  };
  EXPECT_EQ(of(tokens - 1), AttentionKernels::kHopper);
  EXPECT_EQ(of(tokens), AttentionKernels::kTensorCores);
}

// On a GPU of compute capability 9.0, if there is one and the build has kernels for it: without
// them the portable kernels would be compared twice.
class HopperAttentionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda::HopperAttention() == AttentionPlatform::HopperKernels::kAbsent) {
      GTEST_SKIP() << "this build has no kernels for Hopper";
    }
    for (const Device device : Gpus()) {
      if (cuda::CapabilityOf(device) == cuda::ComputeCapability{9, 0}) {
        memory_.emplace(device);
        context_.emplace(device, ledger_, int64_t{1} << 20);
        return;
      }
    }
    GTEST_SKIP() << "there is no GPU of compute capability 9.0";
  }

  AttentionCase Case(const AttentionSpec& spec) { return {*context_, spec, DType::kBF16}; }
  void Run(AttentionCase& x, KernelChoice choice) {
    const HostTensor delta(x.lse.tensor().shape(), DType::kF32);
    Stream& stream = context_->compute();
    cuda::AttentionForward(stream, x.bands, x.v.tensor(), x.scale(), x.out.tensor(), x.lse, choice);
    cuda::AttentionBackward(stream, x.dout.tensor(), x.bands, x.v.tensor(), x.out.tensor(), x.lse,
                            x.scale(), {.delta = delta}, x.dq.tensor(), x.dk.tensor(),
                            x.dv.tensor(), choice);
    stream.Synchronize();
  }

  MemoryLedger ledger_;
  std::optional<TensorsOn> memory_;
  std::optional<Context> context_;
};

// Beside the sizes of the portable kernels': more pairs of tiles than a GPU has multiprocessors, so
// that blocks take several, of one, two and three tiles in a sequence; among them tiles of keys
// that no query sees.
std::vector<AttentionSpec> HopperSpecs() {
  std::vector<AttentionSpec> specs = TensorCoreSpecs();
  specs.push_back(Causal(1, 100, 100, 140, 140, 64));
  specs.push_back(Causal(4, 129, 129, 36, 36, 64));
  specs.push_back(Window(Causal(6, 257, 260, 24, 12, 64), 60));
  specs.push_back(ReRope(Causal(2, 130, 140, 70, 70, 128), 50));
  specs.push_back(Window(Causal(2, 3, 300, 72, 36, 64), 5));
  specs.push_back(Window(Causal(4, 3, 300, 36, 36, 128), 5));
  return specs;
}

TEST_F(HopperAttentionTest, KernelsOfBothKindsMatchTheReference) {
  for (const AttentionSpec& spec : HopperSpecs()) {
    for (const KernelChoice choice : {KernelChoice::kFastest, KernelChoice::kPortable}) {
      SCOPED_TRACE(choice == KernelChoice::kFastest ? "Hopper's" : "portable");
      AttentionCase x = Case(spec);
      Run(x, choice);
      ExpectForwardIsNear(x);
      ExpectBackwardIsNear(x);
    }
  }
}

TEST_F(HopperAttentionTest, RepeatedRunsHaveTheSameBits) {
  for (const AttentionSpec& spec :
       {Causal(2, 1000, 1000, 16, 4, 64), ReRope(Causal(2, 700, 900, 16, 4, 128), 300)}) {
    SCOPED_TRACE(Describe(spec));
    AttentionCase first = Case(spec);
    Run(first, KernelChoice::kFastest);
    AttentionCase again = Case(spec);
    for (int run = 0; run < 20; ++run) {
      Run(again, KernelChoice::kFastest);
      ASSERT_TRUE(HasBitsOf(again.out, first.out)) << run;
      ASSERT_TRUE(HasBitsOf(again.lse, first.lse)) << run;
      ASSERT_TRUE(HasBitsOf(again.dq, first.dq)) << run;
      ASSERT_TRUE(HasBitsOf(again.dk, first.dk)) << run;
      ASSERT_TRUE(HasBitsOf(again.dv, first.dv)) << run;
    }
  }
}

TEST_F(HopperAttentionTest, AWindowOfOneKeyPassesTheValueThrough) {
  for (const int64_t width : {64, 128}) {
    AttentionCase x = Case(Window(Causal(2, 150, 150, 3, 3, width), 1));
    Run(x, KernelChoice::kFastest);
    EXPECT_TRUE(HasBitsOf(x.out, x.v)) << width;
    EXPECT_TRUE(HasBitsOf(x.dv, x.dout)) << width;
  }
}

}  // namespace
}  // namespace panthera::testing
