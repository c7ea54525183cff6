#include "model/ops/residual.h"

#include "tests/model/ops/op_case.h"
#include "tests/support/random_tensor.h"
#include "tests/support/tensor_matchers.h"

namespace panthera::testing {
namespace {

using AddTest = OpTest;
PANTHERA_FOR_FLOAT_TYPES(AddTest);

TEST_P(AddTest, SumsElementsAndMayWriteInPlace) {
  for (const int64_t count : {1, 31, 50000}) {
    const HostTensor a = RandomTensor({count, 3}, dtype(), 1);
    const HostTensor b = RandomTensor({count, 3}, dtype(), 2);
    const HostTensor out({count, 3}, dtype());
    Add(ctx, a, b, out);
    std::vector<double> expected = ToDoubles(a);
    const std::vector<double> added = ToDoubles(b);
    for (size_t i = 0; i < expected.size(); ++i) {
      expected[i] += added[i];
    }
    // Rounded to fp32, then to the compute type.
    EXPECT_TRUE(IsNear(out, expected, {.relative = u() + u32(), .absolute = 0}));
    const HostTensor over_b = CopyOf(b);
    Add(ctx, a, over_b, over_b);
    EXPECT_TRUE(HasBitsOf(over_b, out));
    Add(ctx, a, b, a);
    EXPECT_TRUE(HasBitsOf(a, out));
  }
}

}  // namespace
}  // namespace panthera::testing
