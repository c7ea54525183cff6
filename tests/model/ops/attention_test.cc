#include "model/ops/attention.h"

#include <algorithm>
#include <array>
#include <vector>

#include "model/ops/attention_tiles.h"
#include "tests/model/ops/attention_case.h"
#include "tests/model/ops/attention_checks.h"
#include "tests/model/ops/op_case.h"
#include "tests/support/grad_check.h"
#include "tests/support/random_tensor.h"
#include "tests/support/reference/attention.h"
#include "tests/support/tensor_matchers.h"

namespace panthera::testing {
namespace {

constexpr int64_t kUnbounded = AttentionBand::kUnbounded;

// One token; odd everything; blocks and tiles that end early; grouped heads; more keys than
// queries; windows smaller and larger than a block; bands of different rotations.
std::vector<AttentionSpec> Specs() {
  return {Causal(1, 1, 1, 1, 1, 2),
          Causal(2, 7, 7, 3, 3, 6),
          Causal(1, 130, 130, 4, 2, 16),
          Causal(1, 650, 650, 1, 1, 8),
          Causal(2, 1, 77, 4, 2, 16),
          Causal(1, 5, 140, 2, 1, 10),
          Causal(1, 200, 600, 2, 2, 64),
          Window(Causal(1, 300, 300, 2, 1, 8), 37),
          Window(Causal(1, 300, 300, 2, 2, 8), 128),
          Window(Causal(1, 40, 300, 2, 1, 8), 200),
          Window(Causal(1, 9, 9, 1, 1, 4), 100),
          ReRope(Causal(1, 300, 300, 2, 1, 8), 37),
          ReRope(Causal(1, 300, 300, 2, 1, 8), 128, 250),
          ReRope(Causal(2, 3, 90, 2, 1, 8), 64)};
}

using AttentionTest = OpTest;
PANTHERA_FOR_FLOAT_TYPES(AttentionTest);

TEST_P(AttentionTest, ForwardMatchesTheReference) {
  for (const AttentionSpec& spec : Specs()) {
    AttentionCase x(ctx, spec, dtype());
    x.Forward(ctx);
    const auto expected = reference::Attention(x.Problem());
    const double keys = static_cast<double>(spec.keys);
    EXPECT_TRUE(IsNear(x.lse, expected.lse,
                       {.relative = u32(), .absolute = ScoreError(spec) + 72 * u32()}));
    // out is a mean of v: every probability is off by its score's error and its rounding, and the
    // sums of probabilities and of products by at most one round-off per key.
    const double mean_error = 2 * ScoreError(spec) + u() + (keys + 72) * u32();
    EXPECT_TRUE(IsNear(x.out, expected.out,
                       {.relative = u(), .absolute = mean_error * MaxMagnitude(ToDoubles(x.v))}))
        << spec.queries << " queries, " << spec.keys << " keys, " << spec.bands.size() << " bands";
    EXPECT_EQ(ctx.arena().used_bytes(), 0);
  }
}

TEST_P(AttentionTest, BackwardMatchesTheReference) {
  for (const AttentionSpec& spec : Specs()) {
    AttentionCase x(ctx, spec, dtype());
    x.Forward(ctx);
    x.Backward(ctx);
    ExpectBackwardIsNear(x);
    EXPECT_EQ(ctx.arena().used_bytes(), 0);
  }
}

TEST_P(AttentionTest, AWindowOfOneKeyPassesTheValueThrough) {
  AttentionCase x(ctx, Window(Causal(2, 150, 150, 3, 3, 8), 1), dtype());
  x.Forward(ctx);
  EXPECT_TRUE(HasBitsOf(x.out, x.v));
  x.Backward(ctx);
  EXPECT_TRUE(HasBitsOf(x.dv, x.dout));
}

// Cutting the triangle into two bands of the same rotation changes only the order of sums.
TEST_P(AttentionTest, TwoBandsOfOneRotationAreOneBand) {
  const AttentionSpec whole = Causal(1, 300, 300, 2, 1, 16);
  AttentionSpec cut = whole;
  cut.bands = {RotatedBand(0, 70, whole), RotatedBand(70, kUnbounded, whole)};
  AttentionCase one(ctx, whole, dtype());
  AttentionCase two(ctx, cut, dtype());
  for (AttentionCase* x : {&one, &two}) {
    x->Forward(ctx);
    x->Backward(ctx);
  }
  // A result of the compute type may be rounded to a neighbour, and the backward pass starts from
  // such results.
  const double bound = 2 * u() + 600 * u32();
  EXPECT_LT(RelativeError(two.out, ToDoubles(one.out)), bound);
  EXPECT_LT(RelativeError(two.lse, ToDoubles(one.lse)), 600 * u32());
  EXPECT_LT(RelativeError(two.dq, ToDoubles(one.dq)), bound);
  EXPECT_LT(RelativeError(two.dk, ToDoubles(one.dk)), bound);
  EXPECT_LT(RelativeError(two.dv, ToDoubles(one.dv)), bound);
}

// As a layer uses it: v and all gradients are columns of the product of the fused projection.
TEST_P(AttentionTest, GradientsMayOverwriteThePackedInputs) {
  const AttentionSpec spec = Causal(2, 140, 140, 4, 2, 8);
  AttentionCase x(ctx, spec, dtype());
  x.Forward(ctx);
  x.Backward(ctx);
  const int64_t width = spec.width;
  const int64_t kv_columns = spec.kv_heads * width;
  const int64_t q_columns = spec.heads * width;
  const int64_t rows = spec.batch * spec.queries;
  const int64_t columns = q_columns + 2 * kv_columns + 3;
  const HostTensor packed = Zeros({rows, columns}, dtype());
  const Heads q = Heads::Columns(packed, spec.batch, 0, spec.heads, width);
  const Heads k = Heads::Columns(packed, spec.batch, q_columns, spec.kv_heads, width);
  const Heads v = Heads::Columns(packed, spec.batch, q_columns + kv_columns, spec.kv_heads, width);
  const auto copy = [&](const Heads& from, const Heads& to) {
    WaitForDevice(device());
    DispatchFloat(dtype(), [&]<typename T>() {
      for (int64_t row = 0; row < rows; ++row) {
        std::copy_n(from.at<T>(0, row, 0), from.heads * width, to.at<T>(0, row, 0));
      }
    });
  };
  copy(x.bands[0].q, q);
  copy(x.bands[0].k, k);
  copy(x.v.tensor(), v);
  std::vector<AttentionBand> bands = x.bands;
  bands[0].q = q;
  bands[0].k = k;
  const HostTensor out(x.out.tensor().shape(), dtype());
  AttentionForward(ctx, bands, v, x.scale(), out.tensor(), x.lse);
  AttentionBackward(ctx, x.dout.tensor(), bands, v, out.tensor(), x.lse, x.scale(), q, k, v);
  const HostTensor dq(x.dq.tensor().shape(), dtype());
  const HostTensor dk(x.dk.tensor().shape(), dtype());
  const HostTensor dv(x.dv.tensor().shape(), dtype());
  copy(q, dq.tensor());
  copy(k, dk.tensor());
  copy(v, dv.tensor());
  // The library may choose other kernels for other row strides.
  const double bound = 2 * u() + 300 * u32();
  EXPECT_LT(RelativeError(out, ToDoubles(x.out)), bound);
  EXPECT_LT(RelativeError(dq, ToDoubles(x.dq)), bound);
  EXPECT_LT(RelativeError(dk, ToDoubles(x.dk)), bound);
  EXPECT_LT(RelativeError(dv, ToDoubles(x.dv)), bound);
  const std::vector<double> all = ToDoubles(packed);
  for (int64_t row = 0; row < rows; ++row) {
    EXPECT_EQ(all[static_cast<size_t>((row + 1) * columns - 1)], 0);
  }
}

TEST_P(AttentionTest, BitsDoNotDependOnTheNumberOfThreads) {
  for (const AttentionSpec& spec : {Causal(1, 700, 700, 1, 1, 64), Causal(2, 200, 200, 6, 3, 64),
                                    ReRope(Causal(1, 300, 300, 4, 2, 128), 100)}) {
    std::optional<AttentionCase> one;
    {
      const ThreadLimit limit(1);
      Context single(device(), ledger, kTestArenaBytes);
      one.emplace(single, spec, dtype());
      one->Forward(single);
      one->Backward(single);
    }
    for (const int threads : {2, 5}) {
      const ThreadLimit limit(threads);
      AttentionCase many(ctx, spec, dtype());
      many.Forward(ctx);
      many.Backward(ctx);
      EXPECT_TRUE(HasBitsOf(many.out, one->out)) << threads;
      EXPECT_TRUE(HasBitsOf(many.lse, one->lse)) << threads;
      EXPECT_TRUE(HasBitsOf(many.dq, one->dq)) << threads;
      EXPECT_TRUE(HasBitsOf(many.dk, one->dk)) << threads;
      EXPECT_TRUE(HasBitsOf(many.dv, one->dv)) << threads;
    }
  }
}

TEST_P(AttentionTest, PlanNeedsTheArenaOfTheRealRun) {
  for (const AttentionSpec& spec :
       {Causal(2, 200, 200, 4, 2, 16), Window(Causal(1, 300, 300, 2, 1, 8), 37),
        ReRope(Causal(1, 40, 600, 2, 1, 8), 100)}) {
    for (const int threads : {1, 2}) {
      const ThreadLimit limit(threads);
      Context real(device(), ledger, kTestArenaBytes);
      AttentionCase x(real, spec, dtype());
      x.Forward(real);
      x.Backward(real);
      EXPECT_EQ(PlannedBytes(spec, dtype(), device()), real.arena().peak_bytes()) << threads;
    }
  }
}

TEST_P(AttentionTest, ScratchGrowsWithTheKeysNotTheirSquare) {
  const int64_t small = PlannedBytes(Causal(1, 4096, 4096, 1, 1, 64), dtype(), device());
  const int64_t large = PlannedBytes(Causal(1, 32768, 32768, 1, 1, 64), dtype(), device());
  EXPECT_LE(large, 8 * small);
}

TEST_P(AttentionTest, ScratchForScoresGrowsWithTheWindowNotTheKeys) {
  const int64_t keys = 32768;
  const int64_t bytes = PlannedBytes(Window(Causal(1, keys, keys, 1, 1, 2), 64), dtype(), device());
  // What remains proportional to the keys is one row of dk and one of dv, of two elements each.
  EXPECT_LT(bytes - keys * 2 * 2 * 4, int64_t{2} << 20);
}

TEST(AttentionDeathTest, RefusesBandsWithGapsOrOverlaps) {
  MemoryLedger ledger;
  Context ctx({DeviceKind::kCpu, 0}, ledger, kTestArenaBytes);
  AttentionCase x(ctx, Causal(1, 4, 4, 1, 1, 4), DType::kF32);
  const AttentionBand band = x.bands[0];
  for (const std::array<std::array<int64_t, 2>, 2>& edges :
       {std::array<std::array<int64_t, 2>, 2>{{{0, 2}, {1, 4}}},
        {{{0, 2}, {3, 4}}},
        {{{1, 2}, {2, 4}}}}) {
    x.bands = {band, band};
    for (size_t i = 0; i < 2; ++i) {
      x.bands[i].begin = edges[i][0];
      x.bands[i].end = edges[i][1];
    }
    EXPECT_DEATH(x.Forward(ctx), "without gap or overlap");
  }
}

TEST(AttentionTilesTest, TilesCoverTheRangeInFewSizes) {
  std::vector<int64_t> sizes;
  for (int64_t keys = 1; keys <= 3 * kTileKeys; ++keys) {
    int64_t next = 5;
    ForEachTile({5, 5 + keys}, [&](IndexRange tile) {
      EXPECT_EQ(tile.begin, next);
      EXPECT_LE(tile.size(), kTileKeys);
      next = tile.end;
      sizes.push_back(tile.size());
    });
    EXPECT_EQ(next, 5 + keys);
  }
  std::sort(sizes.begin(), sizes.end());
  const auto different = std::unique(sizes.begin(), sizes.end()) - sizes.begin();
  EXPECT_LT(different, kTileStep + kTileKeys / kTileStep);
}

// The chain rule from raw q, k and v through two bands of different rotations.
TEST(AttentionReferenceTest, BackwardIsTheGradient) {
  const reference::HeadSizes q_sizes{1, 4, 4, 4};
  const reference::HeadSizes kv_sizes{1, 6, 2, 4};
  const std::vector<double> q = RandomDoubles(q_sizes.elements(), 1);
  const std::vector<double> k = RandomDoubles(kv_sizes.elements(), 2);
  const std::vector<double> v = RandomDoubles(kv_sizes.elements(), 3);
  const std::vector<double> dout = RandomDoubles(q_sizes.elements(), 4);
  const std::vector<double> near_q = {2, 3, 4, 5};
  const std::vector<double> near_k = {0, 1, 2, 3, 4, 5};
  const std::vector<double> far_q = {3, 3, 3, 3};
  const auto problem = [&](const std::vector<double>& raw_q, const std::vector<double>& raw_k,
                           const std::vector<double>& values) {
    return reference::AttentionProblem{
        q_sizes,
        kv_sizes,
        {{reference::Rotate(raw_q, q_sizes, near_q, 100, 1),
          reference::Rotate(raw_k, kv_sizes, near_k, 100, 1), 0, 3, near_q, near_k},
         {reference::Rotate(raw_q, q_sizes, far_q, 100, 1), raw_k, 3, 5, far_q, {}}},
        values,
        0.5,
        100};
  };
  const auto loss = [&](const reference::AttentionProblem& at) {
    return InnerProduct(reference::Attention(at).out, dout);
  };
  const auto gradients = reference::AttentionBackward(problem(q, k, v), dout);
  const Tolerance tolerance{.relative = 0, .absolute = kGradientTolerance};
  EXPECT_TRUE(IsNear(gradients.dq,
                     NumericalGradient([&](const auto& at) { return loss(problem(at, k, v)); }, q),
                     tolerance));
  EXPECT_TRUE(IsNear(gradients.dk,
                     NumericalGradient([&](const auto& at) { return loss(problem(q, at, v)); }, k),
                     tolerance));
  EXPECT_TRUE(IsNear(gradients.dv,
                     NumericalGradient([&](const auto& at) { return loss(problem(q, k, at)); }, v),
                     tolerance));
}

}  // namespace
}  // namespace panthera::testing
