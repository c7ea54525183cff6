#include "model/ops/swiglu.h"

#include <array>
#include <cmath>

#include "tests/model/ops/op_case.h"
#include "tests/support/grad_check.h"
#include "tests/support/random_tensor.h"
#include "tests/support/reference/swiglu.h"
#include "tests/support/tensor_matchers.h"

namespace panthera::testing {
namespace {

constexpr std::array<std::array<int64_t, 2>, 5> kSizes = {
    {{1, 1}, {1, 15}, {3, 64}, {50, 33}, {40, 2500}}};

using SwiGluTest = OpTest;
PANTHERA_FOR_FLOAT_TYPES(SwiGluTest);

TEST_P(SwiGluTest, ForwardMatchesTheReference) {
  for (const auto& [rows, width] : kSizes) {
    const HostTensor gate_up = RandomTensor({rows, 2 * width}, dtype(), 1, 4);
    const HostTensor out({rows, width}, dtype());
    SwiGlu(ctx, gate_up, out);
    // Exp is within 2 ulp = 4 round-offs; then a sum, a quotient, two products, and the rounding.
    EXPECT_TRUE(IsNear(out, reference::SwiGlu(ToDoubles(gate_up), static_cast<size_t>(width)),
                       {.relative = 9 * u32() + u(), .absolute = 1e-37}));
  }
}

TEST_P(SwiGluTest, FarGatesCloseOrPass) {
  const HostTensor gate_up =
      FromDoubles(std::array<double, 8>{-200, -90, 90, 0, 2, 2, 2, 2}, {1, 8}, dtype());
  const HostTensor out({1, 4}, dtype());
  SwiGlu(ctx, gate_up, out);
  const std::vector<double> values = ToDoubles(out);
  EXPECT_EQ(values[0], 0);
  EXPECT_NEAR(values[1], 0, 1e-30);
  EXPECT_EQ(values[2], 180);
  EXPECT_EQ(values[3], 0);
}

TEST_P(SwiGluTest, BackwardMatchesTheReference) {
  for (const auto& [rows, width] : kSizes) {
    const HostTensor gate_up = RandomTensor({rows, 2 * width}, dtype(), 1, 4);
    const HostTensor dout = RandomTensor({rows, width}, dtype(), 2);
    const HostTensor dgate_up({rows, 2 * width}, dtype());
    SwiGluBackward(ctx, dout, gate_up, dgate_up);
    const std::vector<double> expected =
        reference::SwiGluBackward(ToDoubles(dout), ToDoubles(gate_up), static_cast<size_t>(width));
    // The sigmoid's 6 round-offs, and five more steps. 1 + g (1 - sigmoid) cancels where the
    // derivative of silu crosses zero; its terms are below 25 and dout * up below 100.
    EXPECT_TRUE(IsNear(dgate_up, expected,
                       {.relative = 12 * u32() + u(), .absolute = 12 * u32() * 25 * 100}));
  }
}

TEST_P(SwiGluTest, BackwardMayOverwriteItsInput) {
  const HostTensor gate_up = RandomTensor({5, 2 * 70}, dtype(), 1);
  const HostTensor dout = RandomTensor({5, 70}, dtype(), 2);
  const HostTensor apart({5, 2 * 70}, dtype());
  SwiGluBackward(ctx, dout, gate_up, apart);
  SwiGluBackward(ctx, dout, gate_up, gate_up);
  EXPECT_TRUE(HasBitsOf(gate_up, apart));
}

TEST_P(SwiGluTest, BitsDoNotDependOnTheNumberOfThreads) {
  const HostTensor gate_up = RandomTensor({301, 2 * 250}, dtype(), 1);
  const HostTensor one({301, 250}, dtype());
  const HostTensor two({301, 250}, dtype());
  {
    const ThreadLimit limit(1);
    SwiGlu(ctx, gate_up, one);
  }
  const ThreadLimit limit(2);
  SwiGlu(ctx, gate_up, two);
  EXPECT_TRUE(HasBitsOf(two, one));
}

TEST(SwiGluReferenceTest, BackwardIsTheGradient) {
  const std::vector<double> gate_up = RandomDoubles(3 * 8, 1);
  const std::vector<double> dout = RandomDoubles(3 * 4, 2);
  const auto function = [&](const std::vector<double>& at) {
    return InnerProduct(reference::SwiGlu(at, 4), dout);
  };
  EXPECT_TRUE(IsNear(reference::SwiGluBackward(dout, gate_up, 4),
                     NumericalGradient(function, gate_up),
                     {.relative = 0, .absolute = kGradientTolerance}));
}

}  // namespace
}  // namespace panthera::testing
