// The kernels of attention on a GPU, under the emulation, against the reference in double
// precision.
#include <cmath>
#include <cstdint>
#include <optional>
#include <vector>

#include <gtest/gtest.h>

#include "model/ops/attention_cuda.h"
#include "runtime/device/stream.h"
#include "tests/model/ops/attention_case.h"
#include "tests/model/ops/attention_checks.h"
#include "tests/simt/emulator/device_state.h"
#include "tests/simt/emulator/race_detector.h"
#include "tests/support/random_tensor.h"
#include "tests/support/reference/attention.h"
#include "tests/support/tensor_matchers.h"

namespace panthera::testing {
namespace {

constexpr int64_t kUnbounded = AttentionBand::kUnbounded;
constexpr Device kEmulated{DeviceKind::kCuda, 0};

// For the race detector, which runs the emulation twenty times slower.
bool IsSmall(const AttentionSpec& spec) {
  return spec.batch * spec.heads * spec.queries * spec.keys * spec.width <= 2 * 66 * 66 * 128;
}

std::vector<AttentionSpec> Runnable(std::vector<AttentionSpec> specs) {
  if (simt::kRaceDetector) {
    std::erase_if(specs, [](const AttentionSpec& spec) { return !IsSmall(spec); });
  }
  return specs;
}

// Widths that no tensor core kernel takes.
std::vector<AttentionSpec> RowSpecs() {
  return Runnable({Causal(1, 1, 1, 1, 1, 2), Causal(2, 7, 7, 3, 3, 6), Causal(1, 65, 70, 4, 2, 34),
                   Causal(1, 40, 40, 1, 1, 256), Causal(1, 33, 34, 2, 1, 64),
                   Window(Causal(1, 66, 66, 1, 1, 8), 5), ReRope(Causal(1, 50, 90, 2, 1, 48), 37),
                   FourBands(Causal(1, 66, 66, 2, 1, 10))});
}

class AttentionKernelsTest : public ::testing::Test {
 protected:
  AttentionKernelsTest() : cpu_({DeviceKind::kCpu, 0}, ledger_, int64_t{1} << 20) {}
  void SetUp() override { simt::DeviceState::Get().Reset(); }
  void TearDown() override { simt::DeviceState::Get().Reset(); }

  AttentionCase Case(const AttentionSpec& spec, DType dtype) { return {cpu_, spec, dtype}; }

  void Forward(AttentionCase& x) {
    cuda::AttentionForward(stream_, x.bands, x.v.tensor(), x.scale(), x.out.tensor(), x.lse);
    stream_.Synchronize();
  }
  void Backward(AttentionCase& x) {
    const HostTensor delta(x.lse.tensor().shape(), DType::kF32);
    cuda::AttentionBackward(stream_, x.dout.tensor(), x.bands, x.v.tensor(), x.out.tensor(), x.lse,
                            x.scale(), {.delta = delta}, x.dq.tensor(), x.dk.tensor(),
                            x.dv.tensor());
    stream_.Synchronize();
  }

  MemoryLedger ledger_;
  Context cpu_;
  Stream stream_{kEmulated};
};

TEST_F(AttentionKernelsTest, ForwardOnTensorCoresMatchesTheReference) {
  for (const AttentionSpec& spec : Runnable(TensorCoreSpecs())) {
    AttentionCase x = Case(spec, DType::kBF16);
    Forward(x);
    ExpectForwardIsNear(x);
  }
}

TEST_F(AttentionKernelsTest, BackwardOnTensorCoresMatchesTheReference) {
  for (const AttentionSpec& spec : Runnable(TensorCoreSpecs())) {
    AttentionCase x = Case(spec, DType::kBF16);
    Forward(x);
    Backward(x);
    ExpectBackwardIsNear(x);
  }
}

TEST_F(AttentionKernelsTest, RowKernelsMatchTheReference) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const AttentionSpec& spec : RowSpecs()) {
      AttentionCase x = Case(spec, dtype);
      Forward(x);
      Backward(x);
      ExpectForwardIsNear(x);
      ExpectBackwardIsNear(x);
    }
  }
}

// Threads of a block, and blocks, take turns in another order with every seed.
TEST_F(AttentionKernelsTest, BitsDoNotDependOnTheOrderOfThreads) {
  std::vector<AttentionSpec> specs = {ReRope(Causal(1, 65, 66, 2, 1, 64), 20),
                                      Causal(1, 140, 140, 2, 1, 128), Causal(1, 30, 30, 2, 1, 24)};
  for (const AttentionSpec& spec : Runnable(specs)) {
    SCOPED_TRACE(Describe(spec));
    std::optional<AttentionCase> first;
    for (const uint64_t seed : {0U, 1U, 2U, 3U}) {
      simt::DeviceState::Get().options().order_seed = seed;
      AttentionCase x = Case(spec, DType::kBF16);
      Forward(x);
      Backward(x);
      if (!first.has_value()) {
        first.emplace(std::move(x));
        continue;
      }
      EXPECT_TRUE(HasBitsOf(x.out, first->out)) << "seed " << seed;
      EXPECT_TRUE(HasBitsOf(x.lse, first->lse)) << "seed " << seed;
      EXPECT_TRUE(HasBitsOf(x.dq, first->dq)) << "seed " << seed;
      EXPECT_TRUE(HasBitsOf(x.dk, first->dk)) << "seed " << seed;
      EXPECT_TRUE(HasBitsOf(x.dv, first->dv)) << "seed " << seed;
    }
  }
}

TEST_F(AttentionKernelsTest, AWindowOfOneKeyPassesTheValueThrough) {
  for (const int64_t width : {64, 128, 24}) {
    AttentionCase x = Case(Window(Causal(1, 70, 70, 1, 1, width), 1), DType::kBF16);
    Forward(x);
    EXPECT_TRUE(HasBitsOf(x.out, x.v)) << width;
    Backward(x);
    EXPECT_TRUE(HasBitsOf(x.dv, x.dout)) << width;
  }
}

// Scores of hundreds, as a run that diverges has them.
TEST_F(AttentionKernelsTest, LargeScoresDoNotOverflow) {
  AttentionCase x = Case(Causal(1, 66, 66, 1, 1, 64), DType::kBF16);
  for (const HostTensor* tensor : {&x.q, &x.k}) {
    BF16* const values = tensor->tensor().data<BF16>();
    for (int64_t i = 0; i < tensor->tensor().elements(); ++i) {
      values[i] = BF16(static_cast<float>(values[i]) * 16);
    }
  }
  x.bands[0].q = x.q.tensor();
  x.bands[0].k = x.k.tensor();
  x.bands[0].q_rotation = std::nullopt;
  x.bands[0].k_rotation = std::nullopt;
  Forward(x);
  Backward(x);
  for (const HostTensor* tensor : {&x.out, &x.lse, &x.dq, &x.dk, &x.dv}) {
    EXPECT_TRUE(std::isfinite(MaxMagnitude(ToDoubles(*tensor))));
  }
  const auto expected =
      reference::Attention({x.Problem().q,
                            x.Problem().kv,
                            {{ToDoubles(x.q), ToDoubles(x.k), 0, kUnbounded, {}, {}}},
                            ToDoubles(x.v),
                            static_cast<double>(x.scale()),
                            1});
  const double u = UnitRoundoff(DType::kBF16);
  EXPECT_LT(RelativeError(x.out, expected.out), 2 * u + 600 * ScoreError(x.spec));
  EXPECT_LT(RelativeError(x.lse, expected.lse), 1e-5);
}

// As a layer may use it: all gradients overwrite what they are gradients of, as columns of one
// matrix. With a matrix of odd width the row kernels do it.
TEST_F(AttentionKernelsTest, GradientsMayOverwriteThePackedInputs) {
  for (const int64_t extra : {8, 3}) {
    const AttentionSpec spec = Causal(2, 33, 33, 4, 2, 64);
    AttentionCase x = Case(spec, DType::kBF16);
    Forward(x);
    Backward(x);
    const int64_t rows = spec.batch * spec.queries;
    const int64_t q_columns = spec.heads * spec.width;
    const int64_t kv_columns = spec.kv_heads * spec.width;
    const int64_t columns = q_columns + 2 * kv_columns + extra;
    const HostTensor packed = Zeros({rows, columns}, DType::kBF16);
    const auto part = [&](int64_t first, int64_t heads) {
      return Heads::Columns(packed, spec.batch, first, heads, spec.width);
    };
    const Heads q = part(0, spec.heads);
    const Heads k = part(q_columns, spec.kv_heads);
    const Heads v = part(q_columns + kv_columns, spec.kv_heads);
    CopyHeads(cpu_, x.bands[0].q, q);
    CopyHeads(cpu_, x.bands[0].k, k);
    CopyHeads(cpu_, x.v.tensor(), v);
    std::vector<AttentionBand> bands = x.bands;
    bands[0].q = q;
    bands[0].k = k;
    EXPECT_TRUE(cuda::OverlapsQueries(bands, q));
    EXPECT_FALSE(cuda::OverlapsQueries(x.bands, q));
    const HostTensor out(x.out.tensor().shape(), DType::kBF16);
    const HostTensor delta(x.lse.tensor().shape(), DType::kF32);
    const HostTensor waiting(x.dq.tensor().shape(), DType::kBF16);
    cuda::AttentionForward(stream_, bands, v, x.scale(), out.tensor(), x.lse);
    cuda::AttentionBackward(stream_, x.dout.tensor(), bands, v, out.tensor(), x.lse, x.scale(),
                            {.delta = delta, .dq = waiting}, q, k, v);
    stream_.Synchronize();
    const HostTensor dq(x.dq.tensor().shape(), DType::kBF16);
    const HostTensor dk(x.dk.tensor().shape(), DType::kBF16);
    const HostTensor dv(x.dv.tensor().shape(), DType::kBF16);
    CopyHeads(cpu_, q, dq.tensor());
    CopyHeads(cpu_, k, dk.tensor());
    CopyHeads(cpu_, v, dv.tensor());
    if (extra == 8) {
      EXPECT_TRUE(HasBitsOf(out, x.out));
      EXPECT_TRUE(HasBitsOf(dq, x.dq));
      EXPECT_TRUE(HasBitsOf(dk, x.dk));
      EXPECT_TRUE(HasBitsOf(dv, x.dv));
    } else {
      // Each set of kernels rounds results and what they start from; the tensor cores' also
      // probabilities and their gradients.
      const double bound = 6 * UnitRoundoff(DType::kBF16);
      EXPECT_LT(RelativeError(out, ToDoubles(x.out)), bound);
      EXPECT_LT(RelativeError(dq, ToDoubles(x.dq)), bound);
      EXPECT_LT(RelativeError(dk, ToDoubles(x.dk)), bound);
      EXPECT_LT(RelativeError(dv, ToDoubles(x.dv)), bound);
    }
    const std::vector<double> all = ToDoubles(packed);
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t column = columns - extra; column < columns; ++column) {
        ASSERT_EQ(all[static_cast<size_t>(row * columns + column)], 0) << "nobody's column";
      }
    }
  }
}

TEST_F(AttentionKernelsTest, NoSequencesAreNoWork) {
  const HostTensor empty({0, 4, 2, 64}, DType::kBF16);
  const HostTensor lse({0, 2, 4}, DType::kF32);
  const AttentionBand band{.q = empty.tensor(), .k = empty.tensor()};
  cuda::AttentionForward(stream_, {&band, 1}, empty.tensor(), 1, empty.tensor(), lse);
  cuda::AttentionBackward(stream_, empty.tensor(), {&band, 1}, empty.tensor(), empty.tensor(), lse,
                          1, {.delta = lse}, empty.tensor(), empty.tensor(), empty.tensor());
  EXPECT_EQ(simt::DeviceState::Get().counts().launches, 0);
}

using AttentionKernelsDeathTest = AttentionKernelsTest;

TEST_F(AttentionKernelsDeathTest, OverwritingQueriesNeedsScratch) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  AttentionCase x = Case(Causal(1, 4, 4, 1, 1, 8), DType::kF32);
  const HostTensor delta(x.lse.tensor().shape(), DType::kF32);
  EXPECT_DEATH(cuda::AttentionBackward(stream_, x.dout.tensor(), x.bands, x.v.tensor(),
                                       x.out.tensor(), x.lse, x.scale(), {.delta = delta},
                                       x.bands[0].q, x.dk.tensor(), x.dv.tensor()),
               "needs scratch");
}

}  // namespace
}  // namespace panthera::testing
