#include "model/ops/embedding.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "tests/model/ops/op_case.h"
#include "tests/support/grad_check.h"
#include "tests/support/random_tensor.h"
#include "tests/support/reference/embedding.h"
#include "tests/support/tensor_matchers.h"

namespace panthera::testing {
namespace {

using EmbeddingTest = OpTest;
PANTHERA_FOR_FLOAT_TYPES(EmbeddingTest);

TEST_P(EmbeddingTest, ForwardCopiesTheRowsOfTheTokens) {
  for (const auto& [count, vocabulary, width] :
       {std::array<int64_t, 3>{1, 1, 1}, {7, 5, 3}, {300, 77, 130}}) {
    const HostTensor tokens = RandomTokens(count, vocabulary, 1);
    const HostTensor table = RandomTensor({vocabulary, width}, dtype(), 2);
    const HostTensor out({count, width}, dtype());
    EmbeddingForward(ctx, tokens, table, out);
    EXPECT_TRUE(
        IsNear(out, reference::Embedding(ToDoubles(tokens), ToDoubles(table.tensor()), width), {}));
  }
}

TEST_P(EmbeddingTest, BackwardMatchesTheReference) {
  for (const auto& [count, vocabulary, width] :
       {std::array<int64_t, 3>{1, 1, 1}, {7, 5, 3}, {1000, 77, 130}, {64, 1000, 16}}) {
    const HostTensor tokens = RandomTokens(count, vocabulary, 1);
    const HostTensor dout = RandomTensor({count, width}, dtype(), 2);
    const HostTensor dtable({vocabulary, width}, DType::kF32);
    EmbeddingBackward(ctx, tokens, dout, {dtable, Accumulate::kOverwrite});
    const std::vector<double> expected =
        reference::EmbeddingBackward(ToDoubles(tokens), ToDoubles(dout), vocabulary, width);
    // A sum of at most `count` terms of at most 5 (five deviations), one rounding for each.
    const double n = static_cast<double>(count);
    EXPECT_TRUE(IsNear(dtable, expected, {.relative = 0, .absolute = n * u32() * n * 5}));
    EXPECT_EQ(ctx.arena().used_bytes(), 0);
  }
}

// On small integers every order of summation is exact.
TEST_P(EmbeddingTest, BackwardOnIntegersIsExact) {
  const HostTensor tokens = FromTokens(std::array<int32_t, 6>{3, 1, 3, 3, 1, 0});
  const HostTensor dout =
      FromDoubles(std::array<double, 12>{1, 2, 10, 20, 3, 4, 5, 6, 30, 40, 7, 8}, {6, 2}, dtype());
  const HostTensor dtable({5, 2}, DType::kF32);
  EmbeddingBackward(ctx, tokens, dout, {dtable, Accumulate::kOverwrite});
  EXPECT_TRUE(IsNear(dtable, std::array<double, 10>{7, 8, 40, 60, 0, 0, 9, 12, 0, 0}, {}));
}

// More positions than one block of a GPU sorts by itself, and of a number that is no power of two.
TEST_P(EmbeddingTest, BackwardOfManyPositionsIsExactOnIntegers) {
  constexpr int64_t kPositions = 5000;
  constexpr int64_t kVocabulary = 300;
  const HostTensor tokens = RandomTokens(kPositions, kVocabulary, 1);
  std::vector<double> values;
  for (int64_t i = 0; i < 2 * kPositions; ++i) {
    values.push_back(static_cast<double>(i * i % 17 - 8));
  }
  const HostTensor dout = FromDoubles(values, {kPositions, 2}, dtype());
  const HostTensor dtable({kVocabulary, 2}, DType::kF32);
  EmbeddingBackward(ctx, tokens, dout, {dtable, Accumulate::kOverwrite});
  EXPECT_TRUE(
      IsNear(dtable, reference::EmbeddingBackward(ToDoubles(tokens), values, kVocabulary, 2), {}));
}

TEST_P(EmbeddingTest, BackwardAddsToWhatIsThereAndLeavesAbsentRowsAlone) {
  const HostTensor tokens = FromTokens(std::array<int32_t, 3>{2, 0, 2});
  const HostTensor dout = FromDoubles(std::array<double, 3>{1, 2, 4}, {3, 1}, dtype());
  const HostTensor dtable =
      FromDoubles(std::array<double, 4>{100, 200, 300, 400}, {4, 1}, DType::kF32);
  EmbeddingBackward(ctx, tokens, dout, {dtable, Accumulate::kAdd});
  EXPECT_TRUE(IsNear(dtable, std::array<double, 4>{102, 200, 305, 400}, {}));
}

// 1 + 2^-24 + 2^-24 + ... stays 1 in fp32; the other way round the small ones would add up.
TEST_P(EmbeddingTest, BackwardSumsInTheOrderOfPositions) {
  std::vector<double> values(1025, 0x1p-24);
  values[0] = 1;
  const HostTensor tokens = FromTokens(std::vector<int32_t>(1025, 1));
  const HostTensor dout = FromDoubles(values, {1025, 1}, dtype());
  const HostTensor dtable({2, 1}, DType::kF32);
  EmbeddingBackward(ctx, tokens, dout, {dtable, Accumulate::kOverwrite});
  // On the CPU each addition to 1 is lost. A GPU first adds up runs of 128 positions, of which
  // seven have 128 small values.
  EXPECT_EQ(ToDoubles(dtable)[1], device().is_cuda() ? 1 + 7 * 0x1p-17 : 1.0);
}

// Tokens of every slice and of none of the positions, runs of one token longer than those that a
// GPU adds at a time, several tokens in one run; elements in packs and one by one.
struct Cut {
  int64_t count;
  int64_t width;
  std::vector<int64_t> bounds;  // of slices, of which some are empty; the last is the vocabulary
};
std::vector<Cut> Cuts() {
  return {{1, 1, {0, 1}},
          {7, 3, {0, 2, 2, 3, 5}},
          {1000, 130, {0, 1, 40, 41, 77}},
          {1000, 16, {0, 1, 3, 4}},
          {64, 32, {0, 0, 1000, 1003}}};
}

TEST_P(EmbeddingTest, ForwardOfSlicesAddsUpToThatOfTheWholeTable) {
  for (const Cut& cut : Cuts()) {
    const int64_t vocabulary = cut.bounds.back();
    const HostTensor tokens = RandomTokens(cut.count, vocabulary, 1);
    const HostTensor table = RandomTensor({vocabulary, cut.width}, dtype(), 2);
    const HostTensor whole({cut.count, cut.width}, dtype());
    EmbeddingForward(ctx, tokens, table, whole);
    HostTensor sum = Zeros({cut.count, cut.width}, dtype());
    for (size_t r = 0; r + 1 < cut.bounds.size(); ++r) {
      const int64_t first = cut.bounds[r];
      const HostTensor rows = CopyOf(table.tensor().Slice(first, cut.bounds[r + 1]));
      const HostTensor part({cut.count, cut.width}, dtype());
      EmbeddingForward(ctx, tokens, rows, {first, vocabulary}, part);
      std::vector<double> values = ToDoubles(part);
      const std::vector<double> before = ToDoubles(sum);
      for (size_t i = 0; i < values.size(); ++i) {
        ASSERT_TRUE(values[i] == 0 || before[i] == 0) << i;
        values[i] += before[i];
      }
      sum = FromDoubles(values, {cut.count, cut.width}, dtype());
    }
    EXPECT_TRUE(HasBitsOf(sum, whole));
  }
}

TEST_P(EmbeddingTest, BackwardOfASliceHasTheBitsOfTheWholeTables) {
  for (const Cut& cut : Cuts()) {
    const int64_t vocabulary = cut.bounds.back();
    const HostTensor tokens = RandomTokens(cut.count, vocabulary, 1);
    const HostTensor dout = RandomTensor({cut.count, cut.width}, dtype(), 2);
    for (const Accumulate accumulate : {Accumulate::kOverwrite, Accumulate::kAdd}) {
      const HostTensor before = RandomTensor({vocabulary, cut.width}, DType::kF32, 3);
      const HostTensor whole = CopyOf(before);
      EmbeddingBackward(ctx, tokens, dout, {whole, accumulate});
      for (size_t r = 0; r + 1 < cut.bounds.size(); ++r) {
        const int64_t first = cut.bounds[r];
        const HostTensor dtable = CopyOf(before.tensor().Slice(first, cut.bounds[r + 1]));
        EmbeddingBackward(ctx, tokens, dout, {first, vocabulary}, {dtable, accumulate});
        EXPECT_TRUE(HasBitsOf(dtable, whole.tensor().Slice(first, cut.bounds[r + 1]))) << first;
      }
    }
  }
}

TEST_P(EmbeddingTest, BitsDoNotDependOnTheNumberOfThreads) {
  const HostTensor tokens = RandomTokens(5000, 40, 1);
  const HostTensor dout = RandomTensor({5000, 96}, dtype(), 2);
  const HostTensor one({40, 96}, DType::kF32);
  const HostTensor many({40, 96}, DType::kF32);
  {
    const ThreadLimit limit(1);
    EmbeddingBackward(ctx, tokens, dout, {one, Accumulate::kOverwrite});
  }
  for (const int threads : {2, 5}) {
    const ThreadLimit limit(threads);
    EmbeddingBackward(ctx, tokens, dout, {many, Accumulate::kOverwrite});
    EXPECT_TRUE(HasBitsOf(many, one)) << threads << " threads";
  }
}

TEST_P(EmbeddingTest, PlanNeedsTheArenaOfTheRealRun) {
  const auto plan = Context::Plan(device(), ledger);
  EmbeddingBackward(*plan, MetaTensor({100}, DType::kI32), MetaTensor({100, 8}, dtype()),
                    {MetaTensor({33, 8}, DType::kF32), Accumulate::kOverwrite});
  const HostTensor dtable({33, 8}, DType::kF32);
  EmbeddingBackward(ctx, RandomTokens(100, 33, 1), RandomTensor({100, 8}, dtype(), 2),
                    {dtable, Accumulate::kOverwrite});
  EXPECT_EQ(plan->arena().peak_bytes(), ctx.arena().peak_bytes());
}

TEST(EmbeddingDeathTest, NamesATokenOutsideTheTable) {
  MemoryLedger ledger;
  Context ctx({DeviceKind::kCpu, 0}, ledger, kTestArenaBytes);
  const HostTensor table = Zeros({3, 2}, DType::kF32);
  const HostTensor out({1, 2}, DType::kF32);
  EXPECT_DEATH(EmbeddingForward(ctx, FromTokens(std::array<int32_t, 1>{3}), table, out), "3 vs. 3");
}

TEST(EmbeddingDeathTest, NamesATokenOutsideTheVocabularyOfASlice) {
  MemoryLedger ledger;
  Context ctx({DeviceKind::kCpu, 0}, ledger, kTestArenaBytes);
  const HostTensor tokens = FromTokens(std::array<int32_t, 1>{7});
  const HostTensor rows = Zeros({1, 2}, DType::kF32);
  EXPECT_DEATH(EmbeddingForward(ctx, tokens, Zeros({3, 2}, DType::kF32), {2, 7}, rows), "7 vs. 7");
  EXPECT_DEATH(
      EmbeddingBackward(ctx, tokens, rows, {2, 7}, {Zeros({3, 2}, DType::kF32), Accumulate::kAdd}),
      "7 vs. 7");
}

TEST(EmbeddingReferenceTest, BackwardIsTheGradient) {
  const std::vector<double> tokens = {2, 0, 2, 1};
  const std::vector<double> dout = RandomDoubles(4 * 3, 1);
  const auto function = [&](const std::vector<double>& table) {
    return InnerProduct(reference::Embedding(tokens, table, 3), dout);
  };
  EXPECT_TRUE(IsNear(reference::EmbeddingBackward(tokens, dout, 4, 3),
                     NumericalGradient(function, RandomDoubles(4 * 3, 2)),
                     {.relative = 0, .absolute = kGradientTolerance}));
}

}  // namespace
}  // namespace panthera::testing
