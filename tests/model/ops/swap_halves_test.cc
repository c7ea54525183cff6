#include "model/ops/swap_halves.h"

#include <array>

#include "tests/model/ops/op_case.h"
#include "tests/support/random_tensor.h"
#include "tests/support/tensor_matchers.h"

namespace panthera::testing {
namespace {

using SwapHalvesTest = OpTest;
PANTHERA_FOR_FLOAT_TYPES(SwapHalvesTest);

TEST_P(SwapHalvesTest, ExchangesTheHalvesOfEveryRow) {
  const HostTensor x =
      FromDoubles(std::array<double, 12>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, {2, 6}, dtype());
  const HostTensor out({2, 6}, dtype());
  SwapHalves(ctx, x, out);
  EXPECT_TRUE(IsNear(out, std::array<double, 12>{4, 5, 6, 1, 2, 3, 10, 11, 12, 7, 8, 9}, {}));
}

TEST_P(SwapHalvesTest, IsItsOwnInverse) {
  const HostTensor x = RandomTensor({301, 98}, dtype(), 1);
  const HostTensor once({301, 98}, dtype());
  const HostTensor twice({301, 98}, dtype());
  SwapHalves(ctx, x, once);
  SwapHalves(ctx, once, twice);
  EXPECT_TRUE(HasBitsOf(twice, x));
}

}  // namespace
}  // namespace panthera::testing
