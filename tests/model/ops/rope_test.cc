#include "model/ops/rope.h"

#include <array>
#include <cmath>

#include "tests/model/ops/op_case.h"
#include "tests/support/random_tensor.h"
#include "tests/support/reference/attention.h"
#include "tests/support/tensor_matchers.h"

namespace panthera::testing {
namespace {

constexpr double kBase = 10000;

class OwnedTable {
 public:
  OwnedTable(int64_t rows, int64_t width, double first, double step)
      : cos_({rows, width / 2}, DType::kF32), sin_({rows, width / 2}, DType::kF32) {
    FillRotaryTable(first, step, kBase, {OnHost(cos_), OnHost(sin_)});
  }
  RotaryTable table() const { return {cos_, sin_}; }

 private:
  HostTensor cos_;
  HostTensor sin_;
};

std::vector<double> Positions(int64_t count, double first, double step) {
  std::vector<double> positions;
  for (int64_t t = 0; t < count; ++t) {
    positions.push_back(first + step * static_cast<double>(t));
  }
  return positions;
}

TEST(RotaryTableTest, HoldsHandComputedAngles) {
  const OwnedTable owned(3, 4, 5, 0.5);
  // Rows at positions 5, 5.5, 6; pairs turn by 1 and by 10000^(-1/2) = 0.01 per position.
  EXPECT_FLOAT_EQ(owned.table().cos.data<float>()[0], static_cast<float>(std::cos(5.0)));
  EXPECT_FLOAT_EQ(owned.table().sin.data<float>()[1], static_cast<float>(std::sin(0.05)));
  EXPECT_FLOAT_EQ(owned.table().sin.data<float>()[4], static_cast<float>(std::sin(6.0)));
  EXPECT_FLOAT_EQ(owned.table().cos.data<float>()[5], static_cast<float>(std::cos(0.06)));
}

// In fp32 the angle itself would be off by 1/16 at this position.
TEST(RotaryTableTest, AnglesOfFarPositionsAreComputedInDouble) {
  const OwnedTable owned(1, 2, 1048575, 1);
  EXPECT_FLOAT_EQ(owned.table().sin.data<float>()[0], static_cast<float>(std::sin(1048575.0)));
}

TEST(RotaryTableTest, RowsOfATableAreTheTableOfLaterPositions) {
  const OwnedTable all(10, 8, 0, 1);
  const OwnedTable later(4, 8, 3, 1);
  EXPECT_TRUE(HasBitsOf(all.table().Rows(3, 7).cos, later.table().cos));
  EXPECT_TRUE(HasBitsOf(all.table().Rows(3, 7).sin, later.table().sin));
}

using RotateTest = OpTest;
PANTHERA_FOR_FLOAT_TYPES(RotateTest);

TEST_P(RotateTest, MatchesTheReferenceBothWays) {
  const auto cases = std::array<reference::HeadSizes, 4>{
      {{1, 1, 1, 2}, {2, 5, 3, 6}, {1, 70, 4, 64}, {3, 33, 2, 34}}};
  for (const reference::HeadSizes& sizes : cases) {
    const Shape shape{sizes.batch, sizes.tokens, sizes.heads, sizes.width};
    const HostTensor x = RandomTensor(shape, dtype(), 1);
    const HostTensor out(shape, dtype());
    const OwnedTable owned(sizes.tokens, sizes.width, 7, 1);
    for (const Rotation rotation : {Rotation::kForward, Rotation::kInverse}) {
      Rotate(ctx, rotation, x.tensor(), owned.table(), out.tensor());
      const auto expected = reference::Rotate(ToDoubles(x), sizes, Positions(sizes.tokens, 7, 1),
                                              kBase, rotation == Rotation::kForward ? 1 : -1);
      // Two products of values below 5 with rounded factors, and their sum: 3 round-offs each.
      EXPECT_TRUE(IsNear(out, expected, {.relative = u(), .absolute = 3 * u32() * 10}));
    }
  }
}

TEST_P(RotateTest, ReadsColumnsOfAPackedMatrixAndWritesNothingElse) {
  constexpr int64_t kRowStride = 50;
  const HostTensor packed = RandomTensor({2 * 3, kRowStride}, dtype(), 1);
  const HostTensor before = CopyOf(packed);
  const OwnedTable owned(3, 8, 0, 1);
  const HostTensor dense({2, 3, 2, 8}, dtype());
  for (int64_t row = 0; row < 6; ++row) {
    for (int64_t c = 0; c < 16; ++c) {
      DispatchFloat(dtype(), [&]<typename T>() {
        dense.tensor().data<T>()[row * 16 + c] =
            packed.tensor().data<T>()[row * kRowStride + 9 + c];
      });
    }
  }
  const HostTensor from_packed({2, 3, 2, 8}, dtype());
  const HostTensor from_dense({2, 3, 2, 8}, dtype());
  const Heads columns = Heads::Columns(packed, 2, 9, 2, 8);
  Rotate(ctx, Rotation::kForward, columns, owned.table(), from_packed.tensor());
  Rotate(ctx, Rotation::kForward, dense.tensor(), owned.table(), from_dense.tensor());
  EXPECT_TRUE(HasBitsOf(from_packed, from_dense));

  Rotate(ctx, Rotation::kForward, columns, owned.table(), columns);
  const std::vector<double> old_values = ToDoubles(before);
  const std::vector<double> rotated = ToDoubles(from_dense);
  const std::vector<double> values = ToDoubles(packed);
  for (size_t i = 0; i < values.size(); ++i) {
    const size_t row = i / kRowStride;
    const size_t column = i % kRowStride;
    const bool inside = 9 <= column && column < 25;
    EXPECT_EQ(values[i], inside ? rotated[row * 16 + column - 9] : old_values[i]) << i;
  }
}

TEST(RotateReferenceTest, IsOrthogonal) {
  const reference::HeadSizes sizes{1, 4, 2, 6};
  const std::vector<double> x = RandomDoubles(sizes.elements(), 1);
  const std::vector<double> positions = Positions(4, 3, 2);
  const auto turned = reference::Rotate(x, sizes, positions, kBase, 1);
  EXPECT_TRUE(IsNear(reference::Rotate(turned, sizes, positions, kBase, -1), x,
                     {.relative = 0, .absolute = 1e-14}));
}

}  // namespace
}  // namespace panthera::testing
