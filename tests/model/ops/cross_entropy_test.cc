#include "model/ops/cross_entropy.h"

#include <array>
#include <cmath>
#include <limits>

#include "tests/model/ops/op_case.h"
#include "tests/support/grad_check.h"
#include "tests/support/random_tensor.h"
#include "tests/support/reference/cross_entropy.h"
#include "tests/support/tensor_matchers.h"

namespace panthera::testing {
namespace {

struct Sizes {
  int64_t rows;
  int64_t vocab_size;
  int64_t columns;
};
// Two of the longest rows do not fit into the shared memory of a GPU.
constexpr std::array<Sizes, 6> kSizes = {
    {{1, 1, 1}, {1, 2, 8}, {5, 31, 31}, {70, 100, 128}, {9, 5003, 5120}, {3, 60001, 60032}}};

using CrossEntropyTest = OpTest;
PANTHERA_FOR_FLOAT_TYPES(CrossEntropyTest);

TEST_P(CrossEntropyTest, LossMatchesTheReferenceAndLeavesTheLogits) {
  for (const Sizes& sizes : kSizes) {
    const HostTensor logits = RandomTensor({sizes.rows, sizes.columns}, dtype(), 1, 4);
    const HostTensor before = CopyOf(logits);
    const HostTensor targets = RandomTokens(sizes.rows, sizes.vocab_size, 2);
    const HostTensor losses({sizes.rows}, DType::kF32);
    CrossEntropy(ctx, logits, sizes.vocab_size, targets, CrossEntropyOutput::kLoss, 1, losses);
    const auto expected =
        reference::CrossEntropy(ToDoubles(logits), static_cast<size_t>(sizes.columns),
                                static_cast<size_t>(sizes.vocab_size), ToDoubles(targets));
    // The logarithm of a sum with relative error 68 + 4 round-offs, minus a difference of logits,
    // below 40 and rounded once; and the rounding of the loss.
    EXPECT_TRUE(IsNear(losses, expected, {.relative = u32(), .absolute = (72 + 40) * u32()}));
    EXPECT_TRUE(HasBitsOf(logits, before));
  }
}

TEST_P(CrossEntropyTest, GradientMatchesTheReferenceAndIsZeroInThePadding) {
  const float scale = 3;
  for (const Sizes& sizes : kSizes) {
    const HostTensor logits = RandomTensor({sizes.rows, sizes.columns}, dtype(), 1, 4);
    const HostTensor targets = RandomTokens(sizes.rows, sizes.vocab_size, 2);
    const HostTensor losses({sizes.rows}, DType::kF32);
    const HostTensor losses_alone({sizes.rows}, DType::kF32);
    const auto expected = reference::CrossEntropyGradient(
        ToDoubles(logits), static_cast<size_t>(sizes.columns),
        static_cast<size_t>(sizes.vocab_size), ToDoubles(targets), static_cast<double>(scale));
    CrossEntropy(ctx, logits, sizes.vocab_size, targets, CrossEntropyOutput::kLoss, scale,
                 losses_alone);
    CrossEntropy(ctx, logits, sizes.vocab_size, targets, CrossEntropyOutput::kLossAndGradient,
                 scale, losses);
    // Exp: 4 round-offs, and its argument, a difference below 40, is rounded to 40 more; the sum:
    // 68 + 44. One product, one rounding.
    EXPECT_TRUE(IsNear(logits, expected, {.relative = 160 * u32() + u(), .absolute = 1e-37}));
    EXPECT_TRUE(HasBitsOf(losses, losses_alone));
  }
}

TEST_P(CrossEntropyTest, PaddingIsNotRead) {
  const HostTensor logits = FromDoubles(
      std::array<double, 4>{1, 2, 500, std::numeric_limits<double>::quiet_NaN()}, {1, 4}, dtype());
  const HostTensor targets = FromTokens(std::array<int32_t, 1>{1});
  const HostTensor losses({1}, DType::kF32);
  const HostTensor correct({1}, DType::kI32);
  TopOne(ctx, logits, 2, targets, correct);
  EXPECT_EQ(ToDoubles(correct)[0], 1);
  CrossEntropy(ctx, logits, 2, targets, CrossEntropyOutput::kLossAndGradient, 1, losses);
  EXPECT_NEAR(ToDoubles(losses)[0], std::log1p(std::exp(-1)), 1e-6);
  EXPECT_EQ(ToDoubles(logits)[2], 0);
  EXPECT_EQ(ToDoubles(logits)[3], 0);
}

// exp of such logits overflows unless the largest is taken off first.
TEST_P(CrossEntropyTest, LargeLogitsDoNotOverflow) {
  const HostTensor logits = FromDoubles(std::array<double, 3>{1000, 1000, -1000}, {1, 3}, dtype());
  const HostTensor losses({1}, DType::kF32);
  CrossEntropy(ctx, logits, 3, FromTokens(std::array<int32_t, 1>{0}),
               CrossEntropyOutput::kLossAndGradient, 1, losses);
  EXPECT_NEAR(ToDoubles(losses)[0], std::log(2), 1e-6);
  EXPECT_TRUE(IsNear(logits, std::array<double, 3>{-0.5, 0.5, 0}, {}));
}

// Beside 1, the other tokens' probability of 2e-9 would vanish in fp32.
TEST_P(CrossEntropyTest, AlmostCertainTokensKeepTheirDigits) {
  const HostTensor logits = FromDoubles(std::array<double, 3>{0, 20, -20}, {1, 3}, dtype());
  const HostTensor losses({1}, DType::kF32);
  CrossEntropy(ctx, logits, 3, FromTokens(std::array<int32_t, 1>{1}),
               CrossEntropyOutput::kLossAndGradient, 1, losses);
  const double rest = std::exp(-20);
  EXPECT_NEAR(ToDoubles(losses)[0] / rest, 1, 8 * u32());
  EXPECT_NEAR(ToDoubles(logits)[0] / rest, 1, 8 * u32() + u());
  EXPECT_NEAR(ToDoubles(logits)[1] / -rest, 1, 8 * u32() + u());
}

TEST_P(CrossEntropyTest, NonFiniteLogitsGiveNonFiniteLosses) {
  const double infinity = std::numeric_limits<double>::infinity();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const HostTensor logits = FromDoubles(
      std::array<double, 9>{1, nan, 2, infinity, 1, 2, 1, -infinity, 1}, {3, 3}, dtype());
  const HostTensor losses({3}, DType::kF32);
  CrossEntropy(ctx, logits, 3, FromTokens(std::array<int32_t, 3>{0, 1, 0}),
               CrossEntropyOutput::kLoss, 1, losses);
  EXPECT_FALSE(std::isfinite(ToDoubles(losses)[0]));
  EXPECT_FALSE(std::isfinite(ToDoubles(losses)[1]));
  EXPECT_NEAR(ToDoubles(losses)[2], std::log(2), 1e-6);
}

TEST_P(CrossEntropyTest, TopOneWantsTheFirstOfTheLargest) {
  const HostTensor logits = FromDoubles(
      std::array<double, 16>{1, 3, 3, 2, 1, 3, 3, 2, 5, 3, 3, 2, 1, 3, 3, 4}, {4, 4}, dtype());
  const HostTensor correct({4}, DType::kI32);
  TopOne(ctx, logits, 4, FromTokens(std::array<int32_t, 4>{1, 2, 0, 1}), correct);
  EXPECT_TRUE(IsNear(correct, std::array<double, 4>{1, 0, 1, 0}, {}));
}

TEST_P(CrossEntropyTest, BitsDoNotDependOnTheNumberOfThreads) {
  const HostTensor one = RandomTensor({33, 3000}, dtype(), 1);
  const HostTensor two = CopyOf(one);
  const HostTensor targets = RandomTokens(33, 3000, 2);
  const HostTensor losses_one({33}, DType::kF32);
  const HostTensor losses_two({33}, DType::kF32);
  {
    const ThreadLimit limit(1);
    CrossEntropy(ctx, one, 3000, targets, CrossEntropyOutput::kLossAndGradient, 1, losses_one);
  }
  const ThreadLimit limit(2);
  CrossEntropy(ctx, two, 3000, targets, CrossEntropyOutput::kLossAndGradient, 1, losses_two);
  EXPECT_TRUE(HasBitsOf(two, one));
  EXPECT_TRUE(HasBitsOf(losses_two, losses_one));
}

TEST(CrossEntropyReferenceTest, BackwardIsTheGradient) {
  const std::vector<double> logits = RandomDoubles(3 * 6, 1);
  const std::vector<double> targets = {4, 0, 2};
  const auto function = [&](const std::vector<double>& at) {
    double sum = 0;
    for (const double loss : reference::CrossEntropy(at, 6, 5, targets)) {
      sum += 0.5 * loss;
    }
    return sum;
  };
  EXPECT_TRUE(IsNear(reference::CrossEntropyGradient(logits, 6, 5, targets, 0.5),
                     NumericalGradient(function, logits),
                     {.relative = 0, .absolute = kGradientTolerance}));
}

}  // namespace
}  // namespace panthera::testing
