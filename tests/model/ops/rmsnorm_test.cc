#include "model/ops/rmsnorm.h"

#include <array>
#include <optional>

#include "tests/model/ops/op_case.h"
#include "tests/support/grad_check.h"
#include "tests/support/random_tensor.h"
#include "tests/support/reference/rmsnorm.h"
#include "tests/support/tensor_matchers.h"

namespace panthera::testing {
namespace {

constexpr float kEps = 1e-5F;
// The widest is read twice by a GPU, the others lie in registers.
constexpr std::array<std::array<int64_t, 2>, 6> kSizes = {
    {{1, 1}, {1, 17}, {3, 64}, {300, 33}, {40, 2500}, {3, 9000}}};

using RmsNormTest = OpTest;
PANTHERA_FOR_FLOAT_TYPES(RmsNormTest);

// rstd: half the relative error of a sum of squares (68 round-offs, simd.h), a product, and the
// rounding of the result. y: that, two products, and the rounding to the compute type.
double RstdError() { return 40 * UnitRoundoff(DType::kF32); }
double NormError(DType dtype) {
  return RstdError() + 2 * UnitRoundoff(DType::kF32) + UnitRoundoff(dtype);
}

TEST_P(RmsNormTest, ForwardMatchesTheReference) {
  for (const auto& [rows, width] : kSizes) {
    const HostTensor x = RandomTensor({rows, width}, dtype(), 1, 3);
    const HostTensor gain = RandomTensor({width}, DType::kF32, 2);
    const HostTensor y({rows, width}, dtype());
    const HostTensor rstd({rows}, DType::kF32);
    RmsNorm(ctx, x, gain, kEps, y, rstd);
    const auto expected =
        reference::RmsNorm(ToDoubles(x), ToDoubles(gain), static_cast<double>(kEps));
    EXPECT_TRUE(IsNear(rstd, expected.rstd, {.relative = RstdError()}));
    EXPECT_TRUE(IsNear(y, expected.y, {.relative = NormError(dtype()), .absolute = 1e-37}));
  }
}

TEST_P(RmsNormTest, EpsBoundsTheGainOfTinyRows) {
  const HostTensor x = Zeros({1, 4}, dtype());
  const HostTensor gain = RandomTensor({4}, DType::kF32, 2);
  const HostTensor y({1, 4}, dtype());
  const HostTensor rstd({1}, DType::kF32);
  RmsNorm(ctx, x, gain, 0.25F, y, rstd);
  EXPECT_EQ(ToDoubles(rstd)[0], 2.0);
  EXPECT_EQ(MaxMagnitude(ToDoubles(y)), 0);
}

TEST_P(RmsNormTest, AddRmsNormNormalisesTheRoundedSum) {
  for (const auto& [rows, width] : kSizes) {
    const HostTensor x = RandomTensor({rows, width}, dtype(), 1, 3);
    const HostTensor branch = RandomTensor({rows, width}, dtype(), 2);
    const HostTensor gain = RandomTensor({width}, DType::kF32, 3);
    const HostTensor sum({rows, width}, dtype());
    const HostTensor y({rows, width}, dtype());
    const HostTensor rstd({rows}, DType::kF32);
    AddRmsNorm(ctx, x, branch, gain, kEps, sum, y, rstd);

    std::vector<double> exact = ToDoubles(x);
    const std::vector<double> added = ToDoubles(branch);
    for (size_t i = 0; i < exact.size(); ++i) {
      exact[i] += added[i];
    }
    // The sum is rounded to fp32, then to the compute type.
    EXPECT_TRUE(IsNear(sum, exact, {.relative = u() + u32(), .absolute = 0}));
    const HostTensor y_alone({rows, width}, dtype());
    const HostTensor rstd_alone({rows}, DType::kF32);
    RmsNorm(ctx, sum, gain, kEps, y_alone, rstd_alone);
    EXPECT_TRUE(HasBitsOf(y, y_alone));
    EXPECT_TRUE(HasBitsOf(rstd, rstd_alone));
  }
}

TEST_P(RmsNormTest, ForwardMayWriteInPlace) {
  const HostTensor x = RandomTensor({5, 100}, dtype(), 1);
  const HostTensor branch = RandomTensor({5, 100}, dtype(), 2);
  const HostTensor gain = RandomTensor({100}, DType::kF32, 3);
  const HostTensor sum({5, 100}, dtype());
  const HostTensor y({5, 100}, dtype());
  const HostTensor rstd({5}, DType::kF32);
  AddRmsNorm(ctx, x, branch, gain, kEps, sum, y, rstd);
  for (const bool sum_is_x : {true, false}) {
    const HostTensor x_copy = CopyOf(x);
    const HostTensor branch_copy = CopyOf(branch);
    const Tensor in_place = sum_is_x ? x_copy : branch_copy;
    const HostTensor y_apart({5, 100}, dtype());
    AddRmsNorm(ctx, x_copy, branch_copy, gain, kEps, in_place,
               sum_is_x ? Tensor(branch_copy) : Tensor(y_apart), rstd);
    EXPECT_TRUE(HasBitsOf(in_place, sum));
    EXPECT_TRUE(HasBitsOf(sum_is_x ? branch_copy : y_apart, y));
  }
  RmsNorm(ctx, sum, gain, kEps, sum, rstd);
  EXPECT_TRUE(HasBitsOf(sum, y));
}

struct Backward {
  HostTensor dx;
  HostTensor dgain;
};

class RmsNormBackwardTest : public OpTest {
 protected:
  void Make(int64_t rows, int64_t width) {
    dy.emplace(RandomTensor({rows, width}, dtype(), 1));
    x.emplace(RandomTensor({rows, width}, dtype(), 2, 3));
    dresidual.emplace(RandomTensor({rows, width}, dtype(), 3));
    gain.emplace(RandomTensor({width}, DType::kF32, 4));
    rstd.emplace(Shape{rows}, DType::kF32);
    const HostTensor y({rows, width}, dtype());
    RmsNorm(ctx, *x, *gain, kEps, y, *rstd);
  }

  Backward Run(const std::optional<Tensor>& residual) {
    Backward result{HostTensor(x->tensor().shape(), dtype()),
                    HostTensor(gain->tensor().shape(), DType::kF32)};
    RmsNormBackward(ctx, *dy, *x, *gain, *rstd, residual, result.dx,
                    {result.dgain, Accumulate::kOverwrite});
    return result;
  }

  std::optional<HostTensor> dy;
  std::optional<HostTensor> x;
  std::optional<HostTensor> dresidual;
  std::optional<HostTensor> gain;
  std::optional<HostTensor> rstd;
};
PANTHERA_FOR_FLOAT_TYPES(RmsNormBackwardTest);

TEST_P(RmsNormBackwardTest, MatchesTheReference) {
  for (const auto& [rows, width] : kSizes) {
    for (const bool has_residual : {true, false}) {
      Make(rows, width);
      const Backward actual = Run(has_residual ? std::optional<Tensor>(*dresidual) : std::nullopt);
      const auto expected = reference::RmsNormBackward(
          ToDoubles(*dy), ToDoubles(*x), ToDoubles(*gain), static_cast<double>(kEps),
          has_residual ? ToDoubles(*dresidual) : std::vector<double>());
      // In a row |xh| <= sqrt(C) and |z| < 25: the two terms that may cancel are below
      // 25 sqrt(C) rstd, each with the errors of rstd and of the mean, at most 150 round-offs.
      double scale = 0;
      for (const double value : ToDoubles(*rstd)) {
        scale = std::max(scale, 25 * std::sqrt(static_cast<double>(width)) * value);
      }
      EXPECT_TRUE(IsNear(actual.dx, expected.dx,
                         {.relative = u() + u32(), .absolute = 150 * u32() * scale}))
          << rows << " x " << width;
      // A sum of `rows` terms below 5 * 5 in at most 256 + rows / 256 additions.
      const double n = static_cast<double>(rows);
      EXPECT_TRUE(IsNear(
          actual.dgain, expected.dgain,
          {.relative = 0, .absolute = (std::min(n, 256.0) + n / 256 + 45) * u32() * n * 25}));
    }
  }
}

TEST_P(RmsNormBackwardTest, AddsToTheGainGradient) {
  Make(300, 20);
  const Backward overwritten = Run(std::nullopt);
  const HostTensor dgain = FromDoubles(std::vector<double>(20, 1024), {20}, DType::kF32);
  const HostTensor dx({300, 20}, dtype());
  RmsNormBackward(ctx, *dy, *x, *gain, *rstd, std::nullopt, dx, {dgain, Accumulate::kAdd});
  std::vector<double> expected = ToDoubles(overwritten.dgain);
  for (double& value : expected) {
    value += 1024;
  }
  // Two partial sums are added to values near 1024.
  EXPECT_TRUE(IsNear(dgain, expected, {.relative = 3 * u32(), .absolute = 0}));
}

TEST_P(RmsNormBackwardTest, MayWriteOverTheResidualGradientOrDy) {
  Make(7, 100);
  const Backward apart = Run(*dresidual);
  const HostTensor dgain({100}, DType::kF32);
  const HostTensor over_residual = CopyOf(*dresidual);
  RmsNormBackward(ctx, *dy, *x, *gain, *rstd, over_residual.tensor(), over_residual,
                  {dgain, Accumulate::kOverwrite});
  EXPECT_TRUE(HasBitsOf(over_residual, apart.dx));
  EXPECT_TRUE(HasBitsOf(dgain, apart.dgain));
  const HostTensor over_dy = CopyOf(*dy);
  RmsNormBackward(ctx, over_dy, *x, *gain, *rstd, dresidual->tensor(), over_dy,
                  {dgain, Accumulate::kOverwrite});
  EXPECT_TRUE(HasBitsOf(over_dy, apart.dx));
  EXPECT_TRUE(HasBitsOf(dgain, apart.dgain));
}

TEST_P(RmsNormBackwardTest, BitsDoNotDependOnTheNumberOfThreads) {
  Make(1500, 70);
  std::optional<Backward> one;
  {
    const ThreadLimit limit(1);
    one.emplace(Run(*dresidual));
  }
  for (const int threads : {2, 5}) {
    const ThreadLimit limit(threads);
    const Backward many = Run(*dresidual);
    EXPECT_TRUE(HasBitsOf(many.dx, one->dx));
    EXPECT_TRUE(HasBitsOf(many.dgain, one->dgain));
  }
}

TEST_P(RmsNormBackwardTest, PlanNeedsTheArenaOfTheRealRun) {
  Make(513, 40);
  Run(std::nullopt);
  const auto plan = Context::Plan(device(), ledger);
  const Tensor matrix = MetaTensor({513, 40}, dtype());
  const Tensor row = MetaTensor({40}, DType::kF32);
  RmsNormBackward(*plan, matrix, matrix, row, MetaTensor({513}, DType::kF32), std::nullopt, matrix,
                  {row, Accumulate::kOverwrite});
  EXPECT_EQ(plan->arena().peak_bytes(), ctx.arena().peak_bytes());
  EXPECT_EQ(ctx.arena().used_bytes(), 0);
}

TEST(RmsNormReferenceTest, BackwardIsTheGradient) {
  const std::vector<double> x = RandomDoubles(2 * 5, 1);
  const std::vector<double> gain = RandomDoubles(5, 2);
  const std::vector<double> dy = RandomDoubles(2 * 5, 3);
  const std::vector<double> dresidual = RandomDoubles(2 * 5, 4);
  const auto gradients = reference::RmsNormBackward(dy, x, gain, 0.01, dresidual);
  const auto of_x = [&](const std::vector<double>& at) {
    return InnerProduct(reference::RmsNorm(at, gain, 0.01).y, dy) + InnerProduct(at, dresidual);
  };
  const auto of_gain = [&](const std::vector<double>& at) {
    return InnerProduct(reference::RmsNorm(x, at, 0.01).y, dy);
  };
  const Tolerance tolerance{.relative = 0, .absolute = kGradientTolerance};
  EXPECT_TRUE(IsNear(gradients.dx, NumericalGradient(of_x, x), tolerance));
  EXPECT_TRUE(IsNear(gradients.dgain, NumericalGradient(of_gain, gain), tolerance));
}

}  // namespace
}  // namespace panthera::testing
