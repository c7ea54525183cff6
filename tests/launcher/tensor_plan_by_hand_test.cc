// The plans of 70 billion parameters on meshes whose ranks share each layer, against numbers that
// were worked out by hand.
//
// C = 8192, L = 80, H = 64, K = 8, D = 128, F = 28672, V = 128256, T = 4096; t = 8 ranks share each
// layer, R such shares train side by side; B sequences, N = B * T tokens at a time. Everything
// divides by 8. What plan_by_hand_test.cc says of a rank holds here of its eighth of every matrix
// and table and of R, but that gains are whole on every rank. Besides, each rank has as
// communication memory
//
//   three times [N, C] in bf16, for what leaves, what arrives, and what arrives ahead: more than
//   any of the rest that travels through it
//   the gradients of gains of the t ranks, fp32
//   flags (4 bytes) for the group with the most tensors of the t * R ranks, in place of R
//   sums over each tensor (8 bytes) of the t ranks, for gradients and again for weights
//
// and it sends to each of t - 1 neighbours, with m = N / t rows of its own:
//
//   in a micro-step, [m, C] in bf16 for each all-gather and each reduce-scatter: of a block 4
//   forward (either branch begins with one and ends with the other), the same 4 when it is
//   recomputed, and 6 backward (gradient and input of either branch come together, the gradient of
//   its input is scattered); after the embedding and before its gradient one each; for the head
//   all rows' features and their gradients, whatever the chunks, one each
//   4 numbers in double for each of the N tokens, about the logits that it has
//   all gains' gradients (fp32), of its rows
//   the flags (4 bytes) of the R ranks beside it, for each tensor
//   once a step both kinds of sums, 8 bytes for each tensor
#include <cstdint>

#include <gmock/gmock.h>

#include "model/cost.h"
#include "tests/launcher/plan_by_hand.h"

namespace panthera {
namespace {

using testing::ByHand;
using testing::ExpectOutsideOfTheArena;
using testing::kCpu;
using testing::kCuda;
using testing::kWorkspace;
using testing::LoadShipped;
using testing::PlanFor;
using testing::WithoutProductScratch;

// 128256 / 8 rows of 8192: the head, and the embedding before it is padded.
constexpr int64_t kTable = 131'334'144;
static_assert(kTable == 16'032 * 8192);
// q and o: 2 * 1024 * 8192 = 16,777,216; k, v: 2 * 128 * 8192 = 2,097,152; gate, up, down:
// 3 * 3584 * 8192 = 88,080,384.
constexpr int64_t kBlock = 106'954'752;
// 2 * 80 + 1 norms of 8192.
constexpr int64_t kGains = 1'318'912;
// 7 matrices in each of 80 blocks, embedding, head, 161 norms; most in a group: the norms.
constexpr int64_t kTensors = 7 * 80 + 2 + 161;
// 128256 rows are 4008 words.
constexpr int64_t kSeenRows = 4 * 4008;
// Gathers and scatters of [m, C] in a micro-step.
constexpr int64_t kActivationsSent = 80 * (4 + 4 + 6) + 2 + 2;
static_assert(kActivationsSent == 1124);
// Hashes of 83 groups: values of the whole group and of the shard, momentum; low bits of 82.
constexpr int64_t kHashes = 4 * 83 - 1;

// R = 8, B = 2; 512 sequences are 32 micro-steps. `momentum` bytes of state for each parameter.
ByHand On64Ranks(int64_t momentum) {
  // 16032 rows divide by 8, and so do 104,448 blocks of 1,024 elements in kBlock and 128,256 in the
  // head: no padding.
  constexpr int64_t kSharded = 2 * kTable + 80 * kBlock;
  constexpr int64_t kShard = 1'102'381'056;
  static_assert(8 * kShard == kSharded);
  constexpr int64_t kWeightSums = 80 * 104'448 + 128'256;
  constexpr int64_t kGradientSums = kWeightSums + 16'032;
  // N = 8192, m = 1024.
  constexpr int64_t kAllRows = 8192 * 8192 * 2;
  constexpr int64_t kOwnRows = 1024 * 8192 * 2;
  const int64_t to_data_rank = 32 * (2 * kShard + 4 * kGains + 4 * kTensors) +
                               8 * kGradientSums / 8 + 8 * kWeightSums / 8 + 8 + kSeenRows +
                               2 * kShard;
  const int64_t to_neighbour =
      32 * (kActivationsSent * kOwnRows + 8192 * 4 * 8 + 4 * kGains + 4 * 8 * kTensors) +
      2 * 8 * kTensors;
  return {
      .weights = 2 * kSharded + 4 * kGains,
      .state = (1 + momentum) * kShard + momentum * kGains,
      .gradients = 4 * (kTable + kTable) + 4 * kGains,
      // Gains of 8 ranks: 42 MB, less than the table. The gains' own sums are 161 * 8 blocks.
      .communication = 2 * kTable + 2 * kTable + 8 * (kGradientSums + 1288) + 8 * kWeightSums +
                       (2 * 8 + 5) * kTensors + 2 * 8 * 8 * kTensors + 4 * 8 * 8 * 161 + 8 * 8 +
                       32 + 128'256 + 8 * kSeenRows + 8 * kHashes + 3 * kAllRows + 8 * 4 * kGains,
      .data = 4096 * 64 * 8 + (8 + 8192 * 8) + (4096 * 16 + 8192 * 8),
      // Of the shard bf16 weights, their low bits and the momentum; the gains of the first rank.
      .copy = (3 + momentum) * kShard + (4 + momentum) * kGains,
      .sent = {7 * to_data_rank, 7 * to_neighbour}};
}

TEST(TensorPlanByHandTest, SeventyBillionParametersOn64Ranks) {
  RunOptions options = LoadShipped("llama_70b_64gpu", 64);
  ASSERT_EQ(options.parallel.tensor, 8);
  EXPECT_EQ(CountParameters(options.model).total(), 70'553'706'496);
  const ByHand expected = On64Ranks(2);
  EXPECT_EQ(expected.weights, 17'643'372'544);
  EXPECT_EQ(expected.state, 3'309'780'992);
  EXPECT_EQ(expected.gradients, 1'055'948'800);
  const StepPlan cuda = PlanFor(options, 64, kCuda);
  ExpectOutsideOfTheArena(cuda, expected);

  // Of this rank's m = 1024 rows: [m, C] in bf16, and 4 bytes for each.
  constexpr int64_t kOwn = 16'777'216;
  constexpr int64_t kOwnScales = 4'096;
  // The inputs of all blocks and of the final norm, its output, the residual gradient; the final
  // norm's scales; the losses of all N.
  constexpr int64_t kAll = 83 * kOwn + kOwnScales + 4 * 8192;
  // Of the block in work: norm 1, middle and norm 2 of own rows and two norms' scales; of all rows
  // queries, keys, values [N, (8 + 2) * 128] and attention's output [N, 8 * 128] = 37,748,736, lse
  // [B, 8, T] fp32 = 262,144, gate and up [N, 7168] = 117,440,512 and their product 58,720,256.
  constexpr int64_t kSaved =
      3 * kOwn + 2 * kOwnScales + 37'748'736 + 262'144 + 117'440'512 + 58'720'256;
  // The fullest moment on a GPU: the gradients of the branch and of the product of gate and up.
  constexpr int64_t kFullest = kAll + kSaved + kOwn + 58'720'256;
  EXPECT_EQ(cuda.arena_bytes, kFullest + kWorkspace);
  EXPECT_EQ(cuda.arena_bytes, 1'799'663'616);

  const StepPlan cpu = PlanFor(options, 64, kCpu);
  ExpectOutsideOfTheArena(cpu, expected);
  EXPECT_GE(cpu.arena_bytes, WithoutProductScratch(cpu));
  EXPECT_GE(cpu.arena_bytes, kFullest);
}

TEST(TensorPlanByHandTest, SeventyBillionParametersWithFp32MomentumOn64Ranks) {
  RunOptions options = LoadShipped("llama_70b_64gpu", 64);
  options.optim.momentum = MomentumStorage::kFp32;
  ASSERT_EQ(options.Finish(64), absl::OkStatus());
  ExpectOutsideOfTheArena(PlanFor(options, 64, kCuda), On64Ranks(4));
}

// R = 128, B = 1; 2,048 sequences are 16 micro-steps.
TEST(TensorPlanByHandTest, SeventyBillionParametersOn1024Ranks) {
  // 16032 rows are 125.25 for each of 128, so that each has 126: 16,128 rows of 8192.
  constexpr int64_t kEmbedding = 132'120'576;
  // 104,448 blocks of 1,024 elements are 816 for each rank, 128,256 in the head 1,002.
  constexpr int64_t kSharded = kEmbedding + kTable + 80 * kBlock;
  constexpr int64_t kShard = 68'904'960;
  static_assert(128 * kShard == kSharded);
  constexpr int64_t kWeightSums = 80 * 104'448 + 128'256;
  constexpr int64_t kGradientSums = kWeightSums + 16'128;
  // N = 4096, m = 512.
  constexpr int64_t kAllRows = 4096 * 8192 * 2;
  constexpr int64_t kOwnRows = 512 * 8192 * 2;
  const int64_t to_data_rank = 16 * (2 * kShard + 4 * kGains + 4 * kTensors) +
                               8 * kGradientSums / 128 + 8 * kWeightSums / 128 + 8 + kSeenRows +
                               2 * kShard;
  const int64_t to_neighbour =
      16 * (kActivationsSent * kOwnRows + 4096 * 4 * 8 + 4 * kGains + 4 * 128 * kTensors) +
      2 * 8 * kTensors;
  const ByHand expected = {
      .weights = 2 * kSharded + 4 * kGains,
      .state = 3 * kShard + 2 * kGains,
      .gradients = 4 * (kEmbedding + kTable) + 4 * kGains,
      // Gains of 128 ranks: 128 * 4 * 1,318,912 = 675,282,944, more than the embedding.
      .communication = 2 * kEmbedding + 675'282'944 + 8 * (kGradientSums + 1288) + 8 * kWeightSums +
                       (2 * 8 + 5) * kTensors + 2 * 8 * 8 * kTensors + 4 * 8 * 128 * 161 + 8 * 128 +
                       32 + 128'256 + 128 * kSeenRows + 8 * kHashes + 3 * kAllRows + 8 * 4 * kGains,
      .data = 4096 * 64 * 8 + (8 + 4096 * 8) + (4096 * 16 + 4096 * 8),
      .copy = 5 * kShard + 6 * kGains,
      .sent = {127 * to_data_rank, 7 * to_neighbour}};
  const RunOptions options = LoadShipped("llama_70b_1024gpu", 1024);
  ASSERT_EQ(options.parallel.tensor, 8);
  EXPECT_EQ(expected.weights, 17'644'945'408);
  EXPECT_EQ(expected.state, 209'352'704);
  EXPECT_EQ(expected.sent.tensor, 1'056'672'177'232);
  const StepPlan cuda = PlanFor(options, 1024, kCuda);
  ExpectOutsideOfTheArena(cuda, expected);
  ExpectOutsideOfTheArena(PlanFor(options, 1024, kCpu), expected);

  // As on 64 ranks, with half as many rows.
  constexpr int64_t kOwn = 8'388'608;
  constexpr int64_t kOwnScales = 2'048;
  constexpr int64_t kAll = 83 * kOwn + kOwnScales + 4 * 4096;
  constexpr int64_t kSaved =
      3 * kOwn + 2 * kOwnScales + 18'874'368 + 131'072 + 58'720'256 + 29'360'128;
  EXPECT_EQ(cuda.arena_bytes, kAll + kSaved + kOwn + 29'360'128 + kWorkspace);
}

}  // namespace
}  // namespace panthera
