#include "tests/model/ops/attention_checks.h"

#include <cmath>
#include <cstdint>

#include <gtest/gtest.h>

#include "tests/support/random_tensor.h"
#include "tests/support/reference/attention.h"
#include "tests/support/tensor_matchers.h"

namespace panthera::testing {

AttentionSpec FourBands(AttentionSpec spec) {
  const double offset = static_cast<double>(spec.keys - spec.queries);
  spec.bands = {RotatedBand(0, 3, spec),
                {3, 40, Clock{offset / 2, 0.5}, Clock{0, 0.5}},
                {40, 1000, std::nullopt, Clock{5, 0.25}},
                {1000, AttentionBand::kUnbounded, Clock{7, 0}, std::nullopt}};
  return spec;
}

std::vector<AttentionSpec> TensorCoreSpecs() {
  return {Causal(1, 1, 1, 1, 1, 64),
          Causal(1, 1, 1, 1, 1, 128),
          Causal(2, 7, 7, 4, 1, 64),
          Causal(1, 65, 65, 2, 2, 64),
          Causal(1, 65, 65, 1, 1, 128),
          Causal(2, 130, 130, 4, 2, 64),
          Causal(1, 130, 130, 4, 4, 128),
          Causal(1, 3, 70, 2, 1, 64),
          Causal(1, 20, 190, 2, 1, 128),
          Causal(1, 129, 300, 1, 1, 64),
          Window(Causal(1, 66, 66, 1, 1, 64), 5),
          Window(Causal(1, 300, 300, 1, 1, 64), 95),
          Window(Causal(1, 260, 270, 1, 1, 128), 31),
          ReRope(Causal(1, 65, 66, 2, 1, 64), 20),
          ReRope(Causal(1, 200, 200, 1, 1, 128), 64, 150),
          ReRope(Causal(1, 150, 280, 2, 1, 64), 100),
          FourBands(Causal(1, 140, 150, 2, 1, 64)),
          FourBands(Causal(1, 66, 66, 1, 1, 128)),
          Window(Causal(1, 3, 300, 2, 1, 64), 5),
          Window(Causal(1, 3, 300, 2, 1, 128), 5)};
}

std::string Describe(const AttentionSpec& spec) {
  return std::to_string(spec.queries) + " queries, " + std::to_string(spec.keys) + " keys, " +
         std::to_string(spec.heads) + "/" + std::to_string(spec.kv_heads) + " heads of " +
         std::to_string(spec.width) + ", " + std::to_string(spec.bands.size()) + " bands";
}

double ScoreError(const AttentionSpec& spec) {
  const double width = static_cast<double>(spec.width);
  return (width + 8) * UnitRoundoff(DType::kF32) * 3 * std::sqrt(width);
}

void ExpectForwardIsNear(const AttentionCase& x) {
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

void ExpectBackwardIsNear(const AttentionCase& x) {
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

}  // namespace panthera::testing
