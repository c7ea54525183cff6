#include "model/ops/heads.h"

#include "tests/model/ops/op_case.h"
#include "tests/support/random_tensor.h"
#include "tests/support/tensor_matchers.h"

namespace panthera::testing {
namespace {

using HeadsTest = OpTest;
PANTHERA_FOR_FLOAT_TYPES(HeadsTest);

TEST_P(HeadsTest, CopyMovesColumnsAndTouchesNoOthers) {
  const HostTensor dense = RandomTensor({2, 70, 3, 4}, dtype(), 1);
  const HostTensor packed = Zeros({140, 20}, dtype());
  const Heads columns = Heads::Columns(packed, 2, 5, 3, 4);
  CopyHeads(ctx, dense.tensor(), columns);
  const std::vector<double> from = ToDoubles(dense);
  const std::vector<double> to = ToDoubles(packed);
  for (size_t i = 0; i < to.size(); ++i) {
    const size_t row = i / 20;
    const size_t column = i % 20;
    EXPECT_EQ(to[i], 5 <= column && column < 17 ? from[row * 12 + column - 5] : 0) << i;
  }
  const HostTensor back({2, 70, 3, 4}, dtype());
  CopyHeads(ctx, columns, back.tensor());
  EXPECT_TRUE(HasBitsOf(back, dense));
}

TEST(HeadsDeathTest, ColumnsMustLieInTheMatrix) {
  const HostTensor packed = Zeros({4, 20}, DType::kF32);
  EXPECT_DEATH(Heads::Columns(packed, 2, 9, 3, 4), "21 vs. 20");
  EXPECT_DEATH(Heads::Columns(packed, 3, 0, 3, 4), "1 vs. 0");
}

}  // namespace
}  // namespace panthera::testing
