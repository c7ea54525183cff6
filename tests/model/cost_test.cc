#include "model/cost.h"

#include <algorithm>
#include <cstdint>

#include "gtest/gtest.h"

namespace panthera {
namespace {

ModelOptions Llama7B() {
  ModelOptions options;
  options.vocab_size = 32000;
  options.width = 4096;
  options.layers = 32;
  options.heads = 32;
  options.ffn_width = 11008;
  options.sequence_length = 4096;
  CHECK_OK(options.Finish());
  return options;
}

ModelOptions Llama70B() {
  ModelOptions options;
  options.vocab_size = 128256;
  options.width = 8192;
  options.layers = 80;
  options.heads = 64;
  options.kv_heads = 8;
  options.ffn_width = 28672;
  options.sequence_length = 8192;
  CHECK_OK(options.Finish());
  return options;
}

ModelOptions Small124M() {
  ModelOptions options;
  options.vocab_size = 50304;
  options.width = 768;
  options.layers = 12;
  options.heads = 6;
  options.ffn_width = 2048;
  options.sequence_length = 1024;
  options.tie = Tie::kTied;
  CHECK_OK(options.Finish());
  return options;
}

TEST(CostTest, CountsEachPartOfA124MModel) {
  const ParameterCount count = CountParameters(Small124M());
  EXPECT_EQ(count.embedding, 38633472);  // 50304 * 768
  EXPECT_EQ(count.attention, 28311552);  // 12 * 4 * 768^2
  EXPECT_EQ(count.mlp, 56623104);        // 12 * 3 * 768 * 2048
  EXPECT_EQ(count.norms, 19200);         // 25 * 768
  EXPECT_EQ(count.head, 0);              // tied
  EXPECT_EQ(count.total(), 123587328);
}

TEST(CostTest, SwappedHalvesShareTheEmbeddingToo) {
  ModelOptions options = Small124M();
  options.tie = Tie::kSwapHalves;
  EXPECT_EQ(CountParameters(options).head, 0);
  options.tie = Tie::kNone;
  EXPECT_EQ(CountParameters(options).head, 38633472);
}

// The sums of all tensors of the published checkpoints with these shapes.
TEST(CostTest, TotalsEqualThoseOfPublishedModels) {
  EXPECT_EQ(CountParameters(Llama7B()).total(), 6738415616);    // Llama 2 7B
  EXPECT_EQ(CountParameters(Llama70B()).total(), 70553706496);  // Llama 3 70B
  ModelOptions llama_8b = Llama7B();
  llama_8b.vocab_size = 128256;
  llama_8b.kv_heads = 8;
  llama_8b.ffn_width = 14336;
  EXPECT_EQ(CountParameters(llama_8b).total(), 8030261248);  // Llama 3 8B
}

TEST(CostTest, HeadWidthNeedNotBeWidthOverHeads) {
  ModelOptions options = Small124M();
  options.heads = 10;
  options.kv_heads = 5;
  options.head_width = 64;
  // Query 768 x 640, key and value 768 x 320, output 640 x 768.
  EXPECT_EQ(CountParameters(options).attention, 12 * 768 * (640 + 320 + 320 + 640));
}

// Adds up, matrix by matrix and key by key, what one sequence asks for, in integers.
struct SequenceFlops {
  int64_t blocks = 0;
  int64_t head = 0;
};
SequenceFlops SumOverASequence(const ModelOptions& options) {
  const int64_t tokens = options.sequence_length;
  SequenceFlops flops;
  const auto matrix = [&](int64_t rows, int64_t columns) { return 2 * tokens * rows * columns; };
  for (int64_t layer = 0; layer < options.layers; ++layer) {
    const int64_t query = options.heads * options.head_width;
    const int64_t key = options.kv_heads * options.head_width;
    flops.blocks += matrix(query, options.width) + matrix(key, options.width) +
                    matrix(key, options.width) + matrix(options.width, query);
    flops.blocks += matrix(options.ffn_width, options.width) +
                    matrix(options.ffn_width, options.width) +
                    matrix(options.width, options.ffn_width);
    for (int64_t token = 0; token < tokens; ++token) {
      const int64_t seen =
          options.attention_window == 0 ? token + 1 : std::min(token + 1, options.attention_window);
      flops.blocks += 2 * 2 * query * seen;
    }
  }
  flops.head = matrix(options.vocab_size, options.width);
  return flops;
}

// The convention counts T^2 / 2 of the T (T + 1) / 2 pairs, so attention falls short by 1 / (T + 1)
// of itself; with a window of w by at most 1 / w.
void ExpectForwardFlopsOfASequence(const ModelOptions& options, int64_t window) {
  const FlopsPerToken flops = CountFlops(options);
  const SequenceFlops sum = SumOverASequence(options);
  const double exact = static_cast<double>(sum.blocks + sum.head);
  const double forward = flops.forward * static_cast<double>(options.sequence_length);
  const double attention = exact - 2.0 * static_cast<double>(options.sequence_length) *
                                       static_cast<double>(CountParameters(options).attention +
                                                           CountParameters(options).mlp +
                                                           options.vocab_size * options.width);
  EXPECT_LT(forward, exact);
  EXPECT_GE(forward, exact - attention / static_cast<double>(window) * (1 + 1e-9));
}

TEST(CostTest, ForwardIsTheSumOverAllMatricesAndSeenTokens) {
  ExpectForwardFlopsOfASequence(Small124M(), 1024);
  ExpectForwardFlopsOfASequence(Llama7B(), 4096);
  ExpectForwardFlopsOfASequence(Llama70B(), 8192);
}

TEST(CostTest, WindowLimitsTheTokensSeen) {
  ModelOptions options = Small124M();
  options.attention_window = 256;
  ExpectForwardFlopsOfASequence(options, 256);
  EXPECT_LT(CountFlops(options).forward, CountFlops(Small124M()).forward);
}

TEST(CostTest, WindowAsLongAsTheSequenceChangesNothing) {
  ModelOptions options = Small124M();
  for (const int64_t window : {1024, 2000}) {
    options.attention_window = window;
    EXPECT_EQ(CountFlops(options).forward, CountFlops(Small124M()).forward);
  }
}

TEST(CostTest, ModelFlopsByHand) {
  // 6 N + 6 L T H D with N = 28311552 + 56623104 + 38633472, the head included though it is tied.
  EXPECT_EQ(CountFlops(Small124M()).model(), 6.0 * 123568128 + 6.0 * 12 * 1024 * 768);
  // N = 32 (4 * 4096^2 + 3 * 4096 * 11008) + 32000 * 4096.
  EXPECT_EQ(CountFlops(Llama7B()).model(), 6.0 * 6607077376 + 6.0 * 32 * 4096 * 4096);
  // N = 80 (2 * 8192 * 9216 + 3 * 8192 * 28672) + 128256 * 8192.
  EXPECT_EQ(CountFlops(Llama70B()).model(), 6.0 * 69501714432 + 6.0 * 80 * 8192 * 8192);
}

TEST(CostTest, BackwardIsTwiceForward) {
  const FlopsPerToken flops = CountFlops(Llama7B());
  EXPECT_EQ(flops.backward, 2 * flops.forward);
}

TEST(CostTest, RecomputingAddsTheBlocksForwardToHardwareOnly) {
  ModelOptions options = Llama7B();
  const FlopsPerToken kept = CountFlops(options);
  EXPECT_EQ(kept.recomputed, 0);
  EXPECT_EQ(kept.hardware(), kept.model());
  options.recompute = Recompute::kBlock;
  const FlopsPerToken flops = CountFlops(options);
  EXPECT_EQ(flops.model(), kept.model());
  EXPECT_EQ(flops.recomputed, flops.forward - 2.0 * 32000 * 4096);
  EXPECT_EQ(flops.hardware(), kept.model() + flops.recomputed);
}

TEST(ModelOptionsTest, FinishFillsInDerivedValues) {
  ModelOptions options = Llama70B();
  EXPECT_EQ(options.head_width, 128);
  EXPECT_EQ(options.kv_heads, 8);
  EXPECT_EQ(Llama7B().kv_heads, 32);
  options = Small124M();
  options.head_width = 0;
  options.heads = 7;
  options.kv_heads = 7;
  EXPECT_EQ(options.Finish().message(),
            "model.width = 768 does not divide into model.heads = 7; change one of them or set "
            "model.head_width");
}

TEST(ModelOptionsTest, ADerivedHeadWidthLiesInTheRangeOfOneThatIsSet) {
  ModelOptions options = Small124M();
  options.head_width = 0;
  options.width = 16384;
  options.heads = options.kv_heads = 4;
  EXPECT_TRUE(options.Finish().ok());
  options.head_width = 0;
  options.heads = options.kv_heads = 2;
  EXPECT_EQ(options.Finish().message(),
            "model.width = 16384 makes heads of 8192 features with model.heads = 2, and at most "
            "4096 are possible; raise model.heads or set model.head_width");
}

TEST(ModelOptionsTest, FinishRefusesOddHeadsAndUnequalGroups) {
  ModelOptions options = Small124M();
  options.head_width = 63;
  EXPECT_EQ(options.Finish().message(),
            "model.head_width = 63 is odd; rotary positions turn pairs of features, so use 62 or "
            "64");
  options = Small124M();
  options.kv_heads = 4;
  EXPECT_EQ(options.Finish().message(),
            "model.heads = 6 is not a multiple of model.kv_heads = 4; every key/value head serves "
            "equally many query heads, so use a divisor");
  options = Small124M();
  options.head_width = 128;
  options.width = 767;
  options.tie = Tie::kSwapHalves;
  EXPECT_EQ(options.Finish().message(),
            "model.tie = \"swap_halves\" needs an even model.width, which is 767");
}

}  // namespace
}  // namespace panthera
