// Cross-entropy of logits whose columns several ranks share, all of them in one process.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include <gmock/gmock.h>

#include "model/ops/cross_entropy.h"
#include "runtime/base/shape.h"
#include "tests/model/ops/op_case.h"
#include "tests/support/random_tensor.h"
#include "tests/support/reference/cross_entropy.h"
#include "tests/support/tensor_matchers.h"

namespace panthera::testing {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

struct Sizes {
  int64_t rows;
  int64_t vocab_size;
};
constexpr std::array<Sizes, 7> kSizes = {
    {{1, 1}, {3, 2}, {4, 7}, {5, 31}, {70, 100}, {9, 5003}, {3, 60001}}};
constexpr int64_t kMostRanks = 5;

// Logits [n, V] cut into columns of `ranks` ranks: few for the first, and none if there are less
// tokens than ranks.
class Ranks {
 public:
  Ranks(Context& ctx, int64_t ranks, const Tensor& logits, const Tensor& targets)
      : ctx_(ctx),
        targets_(targets),
        vocab_size_(logits.size(1)),
        parts_({ranks, logits.size(0), kCrossEntropyPart}, DType::kF64) {
    for (int64_t rank = 0; rank < ranks; ++rank) {
      const int64_t first = vocab_size_ * rank * rank / (ranks * ranks);
      const int64_t end = vocab_size_ * (rank + 1) * (rank + 1) / (ranks * ranks);
      // Rows that begin at a pack, and others; padding is NaN.
      const int64_t columns = rank % 2 == 0 ? RoundUp(end - first + 1, 8) : end - first + 1;
      HostTensor own({logits.size(0), columns}, logits.dtype());
      CopyColumns(logits, first, own, 0, end - first);
      CrossEntropyPart(ctx_, own, {first, vocab_size_}, end - first, targets_, PartsOf(rank));
      slices_.push_back({first, end - first, std::move(own)});
    }
  }

  // The losses, which all ranks must have with the same bits.
  std::vector<double> Finish(CrossEntropyOutput output, float gradient_scale) {
    const int64_t rows = parts_.tensor().size(1);
    HostTensor all({rows}, DType::kF32);
    for (size_t rank = 0; rank < slices_.size(); ++rank) {
      const Slice& slice = slices_[rank];
      HostTensor losses({rows}, DType::kF32);
      CrossEntropyFromParts(ctx_, slice.logits, {slice.first, vocab_size_}, slice.vocab_size,
                            targets_, parts_, output, gradient_scale, losses);
      if (rank > 0) {
        EXPECT_TRUE(HasBitsOf(losses, all)) << "rank " << rank;
      }
      all = std::move(losses);
    }
    return ToDoubles(all);
  }

  std::vector<double> TopOne() {
    const int64_t rows = parts_.tensor().size(1);
    const HostTensor correct({rows + 1}, DType::kI32);
    TopOneFromParts(ctx_, parts_, correct.tensor().Slice(0, rows));
    std::vector<double> values = ToDoubles(correct);
    EXPECT_EQ(values.back(), -1) << "written beyond the rows";
    values.pop_back();
    return values;
  }

  // What all ranks have in their logits, [n, V].
  HostTensor Logits() const {
    HostTensor all({parts_.tensor().size(1), vocab_size_}, slices_[0].logits.tensor().dtype());
    for (const Slice& slice : slices_) {
      CopyColumns(slice.logits, 0, all, slice.first, slice.vocab_size);
    }
    return all;
  }

  void ExpectZeroPadding() const {
    for (const Slice& slice : slices_) {
      const int64_t columns = slice.logits.tensor().size(1);
      const std::vector<double> values = ToDoubles(slice.logits);
      for (size_t i = 0; i < values.size(); ++i) {
        if (static_cast<int64_t>(i) % columns >= slice.vocab_size) {
          ASSERT_EQ(values[i], 0) << i;
        }
      }
    }
  }

 private:
  struct Slice {
    int64_t first;
    int64_t vocab_size;
    HostTensor logits;
  };

  Tensor PartsOf(int64_t rank) const {
    return parts_.tensor()
        .Slice(rank, rank + 1)
        .Reshape({parts_.tensor().size(1), kCrossEntropyPart});
  }

  // Columns [from_column, from_column + count) of `from` to those of `to` from to_column on.
  static void CopyColumns(const Tensor& from, int64_t from_column, const Tensor& to,
                          int64_t to_column, int64_t count) {
    WaitForDevice(from.device());
    const int64_t size = SizeOf(from.dtype());
    for (int64_t n = 0; n < from.size(0); ++n) {
      std::memcpy(to.bytes_data() + (n * to.size(1) + to_column) * size,
                  from.bytes_data() + (n * from.size(1) + from_column) * size,
                  static_cast<size_t>(count * size));
    }
  }

  Context& ctx_;
  Tensor targets_;
  int64_t vocab_size_;
  HostTensor parts_;
  std::vector<Slice> slices_;
};

std::vector<double> ExpectedLosses(const Tensor& logits, const Tensor& targets) {
  const auto vocab_size = static_cast<size_t>(logits.size(1));
  return reference::CrossEntropy(ToDoubles(logits), vocab_size, vocab_size, ToDoubles(targets));
}

std::vector<double> ExpectedGradient(const Tensor& logits, const Tensor& targets, double scale) {
  const auto vocab_size = static_cast<size_t>(logits.size(1));
  return reference::CrossEntropyGradient(ToDoubles(logits), vocab_size, vocab_size,
                                         ToDoubles(targets), scale);
}

using CrossEntropyPartsTest = OpTest;
PANTHERA_FOR_FLOAT_TYPES(CrossEntropyPartsTest);

// The bounds of CrossEntropyTest hold: sums over ranks are in double.
TEST_P(CrossEntropyPartsTest, LossMatchesTheReferenceOnEveryRank) {
  for (const Sizes& sizes : kSizes) {
    const HostTensor logits = RandomTensor({sizes.rows, sizes.vocab_size}, dtype(), 1, 4);
    const HostTensor targets = RandomTokens(sizes.rows, sizes.vocab_size, 2);
    for (int64_t ranks = 1; ranks <= kMostRanks; ++ranks) {
      Ranks cut(ctx, ranks, logits, targets);
      EXPECT_TRUE(IsNear(cut.Finish(CrossEntropyOutput::kLoss, 1), ExpectedLosses(logits, targets),
                         {.relative = u32(), .absolute = (72 + 40) * u32()}))
          << sizes.vocab_size << " on " << ranks;
      EXPECT_TRUE(HasBitsOf(cut.Logits(), logits));
    }
  }
}

TEST_P(CrossEntropyPartsTest, GradientMatchesTheReferenceAndIsZeroInThePadding) {
  const float scale = 3;
  for (const Sizes& sizes : kSizes) {
    const HostTensor logits = RandomTensor({sizes.rows, sizes.vocab_size}, dtype(), 1, 4);
    const HostTensor targets = RandomTokens(sizes.rows, sizes.vocab_size, 2);
    for (int64_t ranks = 1; ranks <= kMostRanks; ++ranks) {
      Ranks cut(ctx, ranks, logits, targets);
      const std::vector<double> losses = cut.Finish(CrossEntropyOutput::kLoss, scale);
      EXPECT_EQ(cut.Finish(CrossEntropyOutput::kLossAndGradient, scale), losses);
      EXPECT_TRUE(IsNear(cut.Logits(), ExpectedGradient(logits, targets, double{scale}),
                         {.relative = 160 * u32() + u(), .absolute = 1e-37}))
          << sizes.vocab_size << " on " << ranks;
      cut.ExpectZeroPadding();
    }
  }
}

// Logits of thousands: wherever they fall, targets almost certain and almost impossible, and the
// lower half of the tokens of probability zero, with them all that some ranks have.
HostTensor WideLogits(const Sizes& sizes, const std::vector<double>& targets, DType dtype) {
  std::vector<double> values = RandomDoubles(sizes.rows * sizes.vocab_size, 1, 3000);
  for (int64_t n = 0; n < sizes.rows; ++n) {
    double* const row = values.data() + n * sizes.vocab_size;
    double& target = row[static_cast<int64_t>(targets[static_cast<size_t>(n)])];
    const double kept = target;
    if (n % 4 == 1) {
      target = 10000;
    } else if (n % 4 == 2) {
      target = -10000;
    } else if (n % 4 == 3) {
      std::fill_n(row, sizes.vocab_size / 2, -kInfinity);
      target = kept;
    }
  }
  return FromDoubles(values, {sizes.rows, sizes.vocab_size}, dtype);
}

TEST_P(CrossEntropyPartsTest, LogitsOfAnySizeGiveTheLossAndGradientOfTheReference) {
  const float scale = 3;
  for (const Sizes& sizes : {Sizes{4, 1}, {8, 7}, {40, 31}, {40, 500}}) {
    const HostTensor targets = RandomTokens(sizes.rows, sizes.vocab_size, 2);
    const HostTensor logits = WideLogits(sizes, ToDoubles(targets), dtype());
    for (int64_t ranks = 1; ranks <= kMostRanks; ++ranks) {
      Ranks cut(ctx, ranks, logits, targets);
      // The target less the largest logit is rounded, and the loss.
      EXPECT_TRUE(IsNear(cut.Finish(CrossEntropyOutput::kLossAndGradient, scale),
                         ExpectedLosses(logits, targets),
                         {.relative = 2 * u32(), .absolute = (72 + 40) * u32()}))
          << sizes.vocab_size << " on " << ranks;
      // Terms below e^-87 of the largest vanish. Above, the argument of each is rounded to 87
      // round-offs, to 130 more where base 2 is good enough, and with the 84 of a sum that is 220;
      // and the reference rounds the difference from 1.
      EXPECT_TRUE(IsNear(cut.Logits(), ExpectedGradient(logits, targets, double{scale}),
                         {.relative = (87 + 130 + 84) * u32() + u(), .absolute = 1e-15}))
          << sizes.vocab_size << " on " << ranks;
    }
  }
}

// Target, others before and after it, and their sum, by hand; also where the slice has none of
// them.
TEST_P(CrossEntropyPartsTest, PartsSayWhatEachRankHas) {
  const HostTensor logits =
      FromDoubles(std::array<double, 5>{1, 5, 3, 2, kNan}, {1, 5}, dtype());  // the last is padding
  const auto part = [&](int32_t target, const VocabularySlice& slice, int64_t vocab_size) {
    const HostTensor targets = FromTokens(std::array<int32_t, 1>{target});
    const HostTensor parts({1, kCrossEntropyPart}, DType::kF64);
    CrossEntropyPart(ctx, logits, slice, vocab_size, targets, parts);
    WaitForDevice(device());
    const double* const numbers = OnHost(parts).data<double>();
    return std::vector<double>(numbers, numbers + kCrossEntropyPart);
  };
  const auto is = [&](const std::vector<double>& expected) {
    return ::testing::Pointwise(::testing::DoubleNear(8 * u32()), expected);
  };
  const double all = 1 + std::exp(-4) + std::exp(-2) + std::exp(-3);
  EXPECT_THAT(part(1, {0, 4}, 4), is({1, 3, 5, all - 1}));
  EXPECT_THAT(part(13, {10, 20}, 4), is({5, -kInfinity, 2, all - std::exp(-3)}));
  EXPECT_THAT(part(9, {10, 20}, 4), is({-kInfinity, 5, -kInfinity, all}));
  EXPECT_THAT(part(14, {10, 20}, 4), is({5, -kInfinity, -kInfinity, all}));
  EXPECT_THAT(part(10, {10, 20}, 1), is({-kInfinity, -kInfinity, 1, 0}));
  EXPECT_THAT(part(10, {10, 20}, 0), is({-kInfinity, -kInfinity, -kInfinity, 0}));
}

// Beside 1, the other tokens' probability of 4e-18 would vanish even in double.
TEST_P(CrossEntropyPartsTest, AlmostCertainTokensKeepTheirDigits) {
  const HostTensor targets = FromTokens(std::array<int32_t, 1>{1});
  for (const double lead : {20, 40}) {
    const HostTensor logits = FromDoubles(std::array<double, 3>{0, lead, -lead}, {1, 3}, dtype());
    for (int64_t ranks = 1; ranks <= 3; ++ranks) {
      Ranks cut(ctx, ranks, logits, targets);
      const double rest = std::exp(-lead);
      // A CPU's loss is the logarithm of a sum that was rounded in double.
      EXPECT_NEAR(cut.Finish(CrossEntropyOutput::kLossAndGradient, 1)[0], rest,
                  8 * u32() * rest + (device().is_cpu() ? 0x1p-53 : 0));
      const std::vector<double> gradient = ToDoubles(cut.Logits());
      EXPECT_NEAR(gradient[0] / rest, 1, 8 * u32() + u());
      EXPECT_NEAR(gradient[1] / -rest, 1, 8 * u32() + u());
    }
  }
}

TEST_P(CrossEntropyPartsTest, NonFiniteLogitsGiveNonFiniteLossesWhereverTheyLie) {
  const std::vector<std::vector<double>> rows = {
      {1, kNan, 2, 1, 1},       {-kInfinity, -kInfinity, 3, -kInfinity, kNan},
      {kInfinity, 1, 2, 3, 4},  {1, 1, 2, 3, kInfinity},
      {1, 1, kNan, 3, 4},       {1, 1, kInfinity, 3, 4},
      {1, 1, -kInfinity, 3, 4}, {-kInfinity, -kInfinity, -kInfinity, -kInfinity, -kInfinity}};
  const HostTensor targets = FromTokens(std::array<int32_t, 1>{2});
  for (const std::vector<double>& row : rows) {
    const HostTensor logits = FromDoubles(row, {1, 5}, dtype());
    const HostTensor whole({1}, DType::kF32);
    CrossEntropy(ctx, logits, 5, targets, CrossEntropyOutput::kLoss, 1, whole);
    for (int64_t ranks = 1; ranks <= kMostRanks; ++ranks) {
      Ranks cut(ctx, ranks, logits, targets);
      const double loss = cut.Finish(CrossEntropyOutput::kLoss, 1)[0];
      EXPECT_FALSE(std::isfinite(loss)) << ::testing::PrintToString(row) << " on " << ranks;
      EXPECT_EQ(std::isnan(loss), std::isnan(ToDoubles(whole)[0]))
          << ::testing::PrintToString(row) << " on " << ranks;
    }
  }
}

TEST_P(CrossEntropyPartsTest, OneRankHasTheLossAndGradientOfCrossEntropy) {
  for (const Sizes& sizes : kSizes) {
    const HostTensor logits = RandomTensor({sizes.rows, sizes.vocab_size}, dtype(), 1, 4);
    const HostTensor targets = RandomTokens(sizes.rows, sizes.vocab_size, 2);
    Ranks one(ctx, 1, logits, targets);
    const std::vector<double> losses = one.Finish(CrossEntropyOutput::kLossAndGradient, 3);
    const HostTensor whole_losses({sizes.rows}, DType::kF32);
    const HostTensor gradient = CopyOf(logits);
    CrossEntropy(ctx, gradient, sizes.vocab_size, targets, CrossEntropyOutput::kLossAndGradient, 3,
                 whole_losses);
    if (device().is_cpu()) {
      EXPECT_EQ(losses, ToDoubles(whole_losses));
      EXPECT_TRUE(HasBitsOf(one.Logits(), gradient));
    } else {
      // Twice what one of them may be off.
      EXPECT_TRUE(IsNear(losses, ToDoubles(whole_losses),
                         {.relative = 2 * u32(), .absolute = 2 * (72 + 40) * u32()}));
      EXPECT_TRUE(IsNear(one.Logits(), ToDoubles(gradient),
                         {.relative = 320 * u32() + 2 * u(), .absolute = 2e-37}));
    }
  }
}

TEST_P(CrossEntropyPartsTest, TopOneIsThatOfTheWholeRow) {
  constexpr int64_t kRows = 600;
  constexpr int64_t kVocabulary = 7;
  // Of four values there are ties in most rows, and some have no largest.
  std::vector<double> values = ToDoubles(RandomTokens(kRows * kVocabulary, 4, 1));
  for (double& value : values) {
    value = value == 0 ? -kInfinity : value;
  }
  std::fill_n(values.begin(), 3 * kVocabulary, -kInfinity);
  std::fill_n(values.begin() + 3 * kVocabulary, 3 * kVocabulary, kNan);
  std::fill_n(values.begin() + 6 * kVocabulary + 1, kVocabulary - 1, kNan);
  values[6 * kVocabulary] = 5;
  const HostTensor logits = FromDoubles(values, {kRows, kVocabulary}, dtype());
  const HostTensor targets = RandomTokens(kRows, kVocabulary, 2);
  OnHost(targets).data<int32_t>()[0] = 0;
  OnHost(targets).data<int32_t>()[6] = 0;
  const HostTensor whole({kRows}, DType::kI32);
  TopOne(ctx, logits, kVocabulary, targets, whole);
  const std::vector<double> expected = ToDoubles(whole);
  EXPECT_EQ(expected[0], 0);
  EXPECT_EQ(expected[6], 1);
  const auto hits = std::count(expected.begin(), expected.end(), 1);
  EXPECT_GT(hits, kRows / 20);
  EXPECT_LT(hits, kRows / 2);
  for (int64_t ranks = 1; ranks <= kMostRanks; ++ranks) {
    EXPECT_EQ(Ranks(ctx, ranks, logits, targets).TopOne(), expected) << ranks;
  }
}

TEST_P(CrossEntropyPartsTest, MoreRanksThanAWarpHasLanesAddInTheirOrder) {
  constexpr int64_t kRanks = 37;
  const HostTensor logits = RandomTensor({5, 300}, dtype(), 1, 4);
  const HostTensor targets = RandomTokens(5, 300, 2);
  Ranks cut(ctx, kRanks, logits, targets);
  EXPECT_TRUE(IsNear(cut.Finish(CrossEntropyOutput::kLoss, 1), ExpectedLosses(logits, targets),
                     {.relative = u32(), .absolute = (72 + 40) * u32()}));
}

TEST_P(CrossEntropyPartsTest, BitsDoNotDependOnTheNumberOfThreads) {
  const HostTensor logits = RandomTensor({33, 3000}, dtype(), 1);
  const HostTensor targets = RandomTokens(33, 3000, 2);
  const auto run = [&](int threads) {
    const ThreadLimit limit(threads);
    Ranks cut(ctx, 3, logits, targets);
    std::vector<double> losses = cut.Finish(CrossEntropyOutput::kLossAndGradient, 1);
    return std::pair(std::move(losses), ToDoubles(cut.Logits()));
  };
  EXPECT_EQ(run(1), run(2));
}

TEST(CrossEntropyPartsMetaTest, ComputesNothing) {
  MemoryLedger ledger;
  const auto plan = Context::Plan({DeviceKind::kCpu, 0}, ledger);
  constexpr int64_t kRows = int64_t{1} << 20;
  const Tensor logits = MetaTensor({kRows, kRows}, DType::kBF16);
  const Tensor targets = MetaTensor({kRows}, DType::kI32);
  const Tensor parts = MetaTensor({2, kRows, kCrossEntropyPart}, DType::kF64);
  CrossEntropyPart(*plan, logits, {kRows, 2 * kRows}, kRows, targets,
                   MetaTensor({kRows, kCrossEntropyPart}, DType::kF64));
  CrossEntropyFromParts(*plan, logits, {kRows, 2 * kRows}, kRows, targets, parts,
                        CrossEntropyOutput::kLossAndGradient, 1, MetaTensor({kRows}, DType::kF32));
  TopOneFromParts(*plan, parts, targets);
}

TEST(CrossEntropyPartsDeathTest, NamesWhatDoesNotFit) {
  MemoryLedger ledger;
  Context ctx({DeviceKind::kCpu, 0}, ledger, kTestArenaBytes);
  const HostTensor logits = Zeros({1, 4}, DType::kF32);
  const HostTensor parts({1, kCrossEntropyPart}, DType::kF64);
  const auto part = [&](const VocabularySlice& slice, int64_t vocab_size, int32_t target) {
    CrossEntropyPart(ctx, logits, slice, vocab_size, FromTokens(std::array<int32_t, 1>{target}),
                     parts);
  };
  EXPECT_DEATH(part({4, 7}, 4, 0), "8 vs. 7");
  EXPECT_DEATH(part({4, 7}, 3, 7), "7 vs. 7");
  EXPECT_DEATH(part({0, 7}, 5, 0), "5 vs. 4");
  EXPECT_DEATH(TopOneFromParts(ctx, parts, Zeros({1}, DType::kI32)), "2 vs. 3");
}

}  // namespace
}  // namespace panthera::testing
