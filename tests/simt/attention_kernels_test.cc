// The kernels of attention on a GPU, under the emulation, against the reference in double
// precision.
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "model/ops/attention_cuda.h"
#include "runtime/device/stream.h"
#include "tests/model/ops/attention_case.h"
#include "tests/simt/emulator/device_state.h"
#include "tests/simt/emulator/race_detector.h"
#include "tests/support/random_tensor.h"
#include "tests/support/reference/attention.h"
#include "tests/support/tensor_matchers.h"

namespace panthera::testing {
namespace {

constexpr int64_t kUnbounded = AttentionBand::kUnbounded;
constexpr Device kEmulated{DeviceKind::kCuda, 0};

// Four bands with clocks of their own; the last begins where no query sees a key.
AttentionSpec FourBands(AttentionSpec spec) {
  const double offset = static_cast<double>(spec.keys - spec.queries);
  spec.bands = {RotatedBand(0, 3, spec),
                {3, 40, Clock{offset / 2, 0.5}, Clock{0, 0.5}},
                {40, 1000, std::nullopt, Clock{5, 0.25}},
                {1000, kUnbounded, Clock{7, 0}, std::nullopt}};
  return spec;
}

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

// One token; sizes around the kernels' 32, 64 and 128 rows; more keys than queries; windows smaller
// and larger than a tile, and one that holds all pairs of some tiles but one; several bands;
// grouped heads.
std::vector<AttentionSpec> TensorCoreSpecs() {
  return Runnable(
      {Causal(1, 1, 1, 1, 1, 64), Causal(1, 1, 1, 1, 1, 128), Causal(2, 7, 7, 4, 1, 64),
       Causal(1, 65, 65, 2, 2, 64), Causal(1, 65, 65, 1, 1, 128), Causal(2, 130, 130, 4, 2, 64),
       Causal(1, 130, 130, 4, 4, 128), Causal(1, 3, 70, 2, 1, 64), Causal(1, 20, 190, 2, 1, 128),
       Causal(1, 129, 300, 1, 1, 64), Window(Causal(1, 66, 66, 1, 1, 64), 5),
       Window(Causal(1, 300, 300, 1, 1, 64), 95), Window(Causal(1, 260, 270, 1, 1, 128), 31),
       ReRope(Causal(1, 65, 66, 2, 1, 64), 20), ReRope(Causal(1, 200, 200, 1, 1, 128), 64, 150),
       ReRope(Causal(1, 150, 280, 2, 1, 64), 100), FourBands(Causal(1, 140, 150, 2, 1, 64)),
       FourBands(Causal(1, 66, 66, 1, 1, 128))});
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

  // The bounds of tests/model/ops/attention_test.cc: the kernels round in the same places.
  static void ExpectForwardIsNear(const AttentionCase& x);
  static void ExpectBackwardIsNear(const AttentionCase& x);

  MemoryLedger ledger_;
  Context cpu_;
  Stream stream_{kEmulated};
};

std::string Describe(const AttentionSpec& spec) {
  return std::to_string(spec.queries) + " queries, " + std::to_string(spec.keys) + " keys, " +
         std::to_string(spec.heads) + "/" + std::to_string(spec.kv_heads) + " heads of " +
         std::to_string(spec.width) + ", " + std::to_string(spec.bands.size()) + " bands";
}

// A bound of the error of scale * <q, k>: D round-offs of |q| |k|, which is below 3 D for these
// inputs, and a few of the score itself.
double ScoreError(const AttentionSpec& spec) {
  const double width = static_cast<double>(spec.width);
  return (width + 8) * UnitRoundoff(DType::kF32) * 3 * std::sqrt(width);
}

void AttentionKernelsTest::ExpectForwardIsNear(const AttentionCase& x) {
  SCOPED_TRACE(Describe(x.spec));
  const double u = UnitRoundoff(x.out.tensor().dtype());
  const double u32 = UnitRoundoff(DType::kF32);
  const auto expected = reference::Attention(x.Problem());
  const double keys = static_cast<double>(x.spec.keys);
  // Every new maximum rescales the sum, and base-2 exponentials round their argument: a few
  // round-offs of a score, and one per key.
  EXPECT_TRUE(IsNear(x.lse, expected.lse,
                     {.relative = u32, .absolute = 2 * ScoreError(x.spec) + (keys + 72) * u32}));
  // out is a mean of v: every probability is off by its score's error and its rounding, and the
  // sums of probabilities and of products by at most one round-off per key.
  const double mean_error = 2 * ScoreError(x.spec) + u + (keys + 72) * u32;
  EXPECT_TRUE(IsNear(x.out, expected.out,
                     {.relative = u, .absolute = mean_error * MaxMagnitude(ToDoubles(x.v))}));
  EXPECT_LT(RelativeError(x.out, expected.out), 2 * u + 2 * ScoreError(x.spec) + keys * u32);
}

void AttentionKernelsTest::ExpectBackwardIsNear(const AttentionCase& x) {
  SCOPED_TRACE(Describe(x.spec));
  const double u = UnitRoundoff(x.out.tensor().dtype());
  const double u32 = UnitRoundoff(DType::kF32);
  const reference::AttentionProblem problem = x.Problem();
  const auto expected = reference::AttentionBackward(problem, ToDoubles(x.dout));
  // The largest sum of one key's probabilities over all queries: dv for a dout of ones.
  const std::vector<double> ones(ToDoubles(x.dout).size(), 1);
  const double column = MaxMagnitude(reference::AttentionBackward(problem, ones).dv);
  // P is off by its score's error, and rounded; ds by P, dp and delta, which knows out only as
  // rounded; |dp| and |delta| are below 6 sqrt(D) for these inputs; results are rounded once.
  const double sums = static_cast<double>(x.spec.keys + x.spec.queries + 2 * x.spec.width) * u32;
  const double error = 4 * u + 2 * ScoreError(x.spec) + sums;
  const double ds = 2 * 6;  // scale * 2 max |dp|
  const auto bound = [&](double scale) { return Tolerance{.relative = u, .absolute = scale}; };
  EXPECT_TRUE(IsNear(x.dq, expected.dq, bound(error * ds * MaxMagnitude(ToDoubles(x.k)))));
  EXPECT_TRUE(IsNear(x.dk, expected.dk, bound(error * ds * column * MaxMagnitude(ToDoubles(x.q)))));
  EXPECT_TRUE(IsNear(x.dv, expected.dv, bound(error * column * MaxMagnitude(ToDoubles(x.dout)))));
  if (x.spec.keys > 1) {
    // In the norm, errors of single elements do not add up to the worst case.
    const double norm_error = 6 * u + 2 * ScoreError(x.spec);
    EXPECT_LT(RelativeError(x.dq, expected.dq), norm_error);
    EXPECT_LT(RelativeError(x.dk, expected.dk), norm_error);
    EXPECT_LT(RelativeError(x.dv, expected.dv), norm_error);
  }
}

TEST_F(AttentionKernelsTest, ForwardOnTensorCoresMatchesTheReference) {
  for (const AttentionSpec& spec : TensorCoreSpecs()) {
    AttentionCase x = Case(spec, DType::kBF16);
    Forward(x);
    ExpectForwardIsNear(x);
  }
}

TEST_F(AttentionKernelsTest, BackwardOnTensorCoresMatchesTheReference) {
  for (const AttentionSpec& spec : TensorCoreSpecs()) {
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
