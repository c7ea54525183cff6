// The plans of two models that no test machine can hold, against numbers that were worked out by
// hand from the sizes in their configurations; tensor_plan_by_hand_test.cc has meshes.
//
// Letters as everywhere: B, T, C, H, K, D, F, V, L, N = B * T; R ranks. Both store bf16 weights
// with 8 low bits and a bf16 momentum, and fold gradients into the momentum. So a rank has
//
//   weights         2 bytes for every parameter of the matrices and tables, 4 for every gain
//   optimizer state for its shard of 1/R: 1 byte of low bits, 2 of momentum; 2 for every gain
//   gradients       two fp32 slots, as large as the two largest groups; 4 bytes for every gain
//   communication   what it sends of the largest group, bf16; what it receives of it, or of the
//   gains
//                   of all ranks in fp32; 8 bytes for each block of 1,024 elements or row of the
//                   embedding (gradient sums), and again without the embedding (Tiger's sums of
//                   weights), and of both kinds the sums over each tensor (8 bytes); a count (4
//                   bytes) and a flag (1) for each tensor, and the flags (4 bytes) of all ranks for
//                   the group with the most tensors; the losses (8 bytes) of all ranks; the verdict
//                   on a step (32 bytes); as the embedding is not tied, a flag (1 byte) for each of
//                   its rows that says whether its token was seen in the step, and a bit for each
//                   row in whole words (4 bytes) of all ranks; 8 bytes for the hash of each group's
//                   values, and of its shard, low bits and momentum (the gains have no low bits)
//   data            cosines and sines [T, D/2]; loss sum and batch; sums and batch of an evaluation
//   checkpoint copy its shard of the weights and the optimizer state, and all gains
//
// and it sends to each of R - 1 others: in a micro-step its part of every group's gradient (bf16),
// all gains' gradients (fp32) and a flag (4 bytes) for each tensor; once a step both kinds of sums
// of its blocks, its loss, the bits of its rows, and its shard of the new weights.
#include "tests/launcher/plan_by_hand.h"

#include <omp.h>

#include <gmock/gmock.h>

#include "model/cost.h"

namespace panthera {
namespace {

using ::testing::AnyOf;

using testing::ByHand;
using testing::CheckpointCopy;
using testing::ExpectOutsideOfTheArena;
using testing::kCpu;
using testing::kCuda;
using testing::kWorkspace;
using testing::LoadShipped;
using testing::PlanFor;
using testing::WithoutProductScratch;

// One thread's scratch in the backward pass of attention, bf16: for 128 queries by 512 keys the
// scores and the gradients of probabilities in fp32 and both once more in bf16; for the queries two
// fp32 rows of D; for all keys two.
int64_t AttentionBackwardScratch(int64_t tokens, int64_t head_width) {
  return 128 * 512 * (4 + 4 + 2 + 2) + 2 * 128 * head_width * 4 + 2 * tokens * head_width * 4;
}

// C = 4096, L = 32, H = K = 32, D = 128, F = 11008, V = 50304, T = 4096, B = 2, R = 64; 1,024
// sequences are 8 micro-steps.
TEST(PlanByHandTest, SevenBillionParametersOn64Ranks) {
  // 50304 * 4096 in the embedding and in the head.
  constexpr int64_t kTable = 206'045'184;
  // q, k, v, o: 4 * 4096^2 = 67,108,864; gate, up, down: 3 * 4096 * 11008 = 135,266,304.
  constexpr int64_t kBlock = 202'375'168;
  // 2 * 32 + 1 norms of 4096.
  constexpr int64_t kGains = 266'240;
  // Rows and blocks of 1,024 divide by 64: 50304 = 64 * 786; 197,632 blocks in a group of kBlock
  // are 64 * 3088 and 201,216 in the head 64 * 3144. So there is no padding.
  constexpr int64_t kSharded = 2 * kTable + 32 * kBlock;
  static_assert(kSharded == 6'888'095'744);
  constexpr int64_t kShard = 107'626'496;
  static_assert(64 * kShard == kSharded);
  constexpr int64_t kWeightSums = 32 * 197'632 + 201'216;
  constexpr int64_t kGradientSums = kWeightSums + 50'304;
  // 7 matrices in each of 32 blocks, embedding, head, 65 norms; most in a group: the norms.
  constexpr int64_t kTensors = 7 * 32 + 2 + 65;
  // 50304 rows are 1572 words.
  constexpr int64_t kSeenRows = 4 * 1572;

  const ByHand expected = {
      .weights = 2 * kSharded + 4 * kGains,
      .state = 3 * kShard + 2 * kGains,
      .gradients = 4 * (kTable + kTable) + 4 * kGains,
      // Gains of all ranks: 64 * 4 * 266,240 = 68 MB, less than the table. The gains' own sums are
      // 65 * 4 blocks.
      .communication = 2 * kTable + 2 * kTable + 8 * (kGradientSums + 260) + 8 * kWeightSums +
                       (2 * 8 + 5) * kTensors + 4 * 64 * 65 + 8 * 64 + 32 + 50'304 +
                       64 * kSeenRows + 8 * (4 * 35 - 1),
      .data = 4096 * 64 * 8 + (8 + 8192 * 8) + (4096 * 16 + 8192 * 8),
      .copy = 5 * kShard + 6 * kGains,
      .sent = {63 * (8 * (2 * kShard + 4 * kGains + 4 * kTensors) + 8 * kGradientSums / 64 +
                     8 * kWeightSums / 64 + 8 + kSeenRows + 2 * kShard),
               0}};
  const RunOptions options = LoadShipped("llama_7b_64gpu", 64);
  EXPECT_EQ(CountParameters(options.model).total(), 6'888'361'984);
  EXPECT_EQ(expected.weights, 13'777'256'448);
  EXPECT_EQ(expected.state, 323'411'968);
  EXPECT_EQ(expected.gradients, 1'649'426'432);

  // N * C in bf16, and 4 bytes for each of N rows.
  constexpr int64_t kActivation = 67'108'864;
  constexpr int64_t kRow = 32'768;
  // Kept of a block: its output, norm 1, attention's output, middle, norm 2: 5; queries, keys and
  // values: 3; gate and up [N, 2F] = 360,710,144 and their product [N, F] = 180,355,072; two norms'
  // scales; lse [B, H, T] fp32 = 1,048,576.
  constexpr int64_t kKept = 8 * kActivation + 541'065'216 + 2 * kRow + 1'048'576;
  static_assert(kKept == 1'079'050'240);
  // All blocks', the losses, the embedded tokens, the final norm and its scale, the residual
  // gradient.
  constexpr int64_t kAll = 32 * kKept + 3 * kActivation + 2 * kRow;
  // The fullest moment on a GPU is the last block's product for the gradients of Wq, Wk, Wv: of the
  // branch 1, of attention's output 1, of queries, keys and values 3.
  constexpr int64_t kFullest = kAll + 5 * kActivation;
  const StepPlan cuda = PlanFor(options, 64, kCuda);
  ExpectOutsideOfTheArena(cuda, expected);
  EXPECT_EQ(cuda.arena_bytes, kFullest + kWorkspace);
  EXPECT_EQ(cuda.arena_bytes, 35'133'652'992);

  omp_set_num_threads(1);
  const StepPlan cpu = PlanFor(options, 64, kCpu);
  ExpectOutsideOfTheArena(cpu, expected);
  // Where it is fullest depends on what the library takes for each product: at the same moment or
  // inside attention, in the product that the feed-forward's or the head's gradient comes from.
  EXPECT_THAT(WithoutProductScratch(cpu),
              AnyOf(kFullest, kFullest + AttentionBackwardScratch(4096, 128), kAll + kActivation,
                    kAll + kActivation + 180'355'072, kAll + kActivation + 1024 * 50304 * 2));
  EXPECT_GE(cpu.arena_bytes, kFullest);
}

// The same with AdamW on the embedding: its shard of 50304 * 4096 / 64 elements has a bf16 and an
// fp32 moment in place of the bf16 momentum, and its micro-steps add up in an fp32 gradient. Rows
// are not told apart, and there is one more tensor to hash.
TEST(PlanByHandTest, AdamWOnTheTableTakesTwoStatesOfIt) {
  constexpr int64_t kTableShard = 3'219'456;
  static_assert(64 * kTableShard == 50304 * 4096);
  RunOptions options = LoadShipped("llama_7b_64gpu", 64);
  const StepPlan same = PlanFor(options, 64, kCuda);
  options.optim.table.optimizer = TableOptimizer::kAdamW;
  options.optim.lazy_rows = LazyRows::kAuto;
  ASSERT_EQ(options.Finish(64), absl::OkStatus());

  constexpr int64_t kSeenRows = 4 * 1572;
  ExpectOutsideOfTheArena(
      PlanFor(options, 64, kCuda),
      {.weights = same.memory.bytes(MemoryCategory::kWeights),
       .state = same.memory.bytes(MemoryCategory::kOptimizerState) + 4 * kTableShard,
       .gradients = same.memory.bytes(MemoryCategory::kGradients) + 4 * kTableShard,
       .communication =
           same.memory.bytes(MemoryCategory::kCommunication) - 50'304 - 64 * kSeenRows + 8,
       .data = same.memory.bytes(MemoryCategory::kData),
       .copy = CheckpointCopy(same) + 4 * kTableShard,
       .sent = {same.sent.data - 63 * kSeenRows, 0}});
}

// A GPU's is not in its own memory, and a run that wants none has none.
TEST(PlanByHandTest, TheCopyForCheckpointsTakesMemoryOfTheHost) {
  RunOptions options = LoadShipped("llama_7b_64gpu", 64);
  const StepPlan cuda = PlanFor(options, 64, kCuda);
  const StepPlan cpu = PlanFor(options, 64, kCpu);
  options.checkpoint.staging = CheckpointStaging::kNone;
  const StepPlan cuda_without = PlanFor(options, 64, kCuda);
  const StepPlan cpu_without = PlanFor(options, 64, kCpu);
  constexpr int64_t kCopy = int64_t{5} * 107'626'496 + 6 * 266'240;
  EXPECT_EQ(cuda.total_bytes(), cuda_without.total_bytes());
  EXPECT_EQ(cuda.memory.bytes(MemoryCategory::kPinned) -
                cuda_without.memory.bytes(MemoryCategory::kPinned),
            kCopy);
  EXPECT_EQ(cpu.total_bytes() - cpu_without.total_bytes(), kCopy);
  EXPECT_EQ(cpu.memory.bytes(MemoryCategory::kCheckpoint), kCopy);
}

// The same run with steps that travel as directions. A rank's message about its shard of a group
// has a factor (4 bytes) for each tensor and a rate (4 bytes) for each tensor or row of the
// embedding, each of these parts in whole 16 bytes, and 2 bits for each element. A rank has its own
// messages about all groups, those of all ranks about the largest group, and all low bits.
TEST(PlanByHandTest, DirectionsOfSevenBillionParametersOn64Ranks) {
  // 7 factors and 7 rates take 32 bytes each from the beginning to the codes at 64. Of 3088 blocks.
  constexpr int64_t kBlock = 64 + 3088 * 1024 / 4;
  constexpr int64_t kHead = 32 + 3144 * 1024 / 4;
  // One factor in 16 bytes; 786 rates, 3144 bytes; codes from 3168 on.
  constexpr int64_t kEmbedding = 3168 + 786 * 4096 / 4;
  constexpr int64_t kOwn = 32 * kBlock + kHead + kEmbedding;
  static_assert(kOwn == 26'911'872);
  constexpr int64_t kShard = 107'626'496;

  RunOptions options = LoadShipped("llama_7b_64gpu", 64);
  const StepPlan weights = PlanFor(options, 64, kCuda);
  options.optim.publish = PublishMode::kDirection;
  CHECK_OK(options.Finish(64));
  const StepPlan directions = PlanFor(options, 64, kCuda);
  const auto more = [&](MemoryCategory category) {
    return directions.memory.bytes(category) - weights.memory.bytes(category);
  };
  EXPECT_EQ(more(MemoryCategory::kWeights), 0);
  EXPECT_EQ(more(MemoryCategory::kOptimizerState), 63 * kShard);
  EXPECT_EQ(more(MemoryCategory::kGradients), 0);
  // And a hash (8 bytes) of the low bits of all ranks for each of 34 groups that have some.
  EXPECT_EQ(more(MemoryCategory::kCommunication), kOwn + 64 * kEmbedding + 8 * 34);
  EXPECT_EQ(more(MemoryCategory::kData), 0);
  EXPECT_EQ(more(MemoryCategory::kPinned), 0);
  EXPECT_EQ(directions.arena_bytes, weights.arena_bytes);
  EXPECT_EQ(directions.sent.data - weights.sent.data, 63 * (kOwn - 2 * kShard));
}

// C = 8192, L = 80, H = 64, K = 8, D = 128, F = 28672, V = 128256, T = 4096, B = 1, R = 1024; 2,048
// sequences are 2 micro-steps. Blocks are recomputed. Every rank has the whole model.
TEST(PlanByHandTest, SeventyBillionParametersOn1024DataRanks) {
  // 128256 rows are 125.25 for each rank, so that each has 126: 129,024 rows of 8192.
  constexpr int64_t kEmbedding = 1'056'964'608;
  // 128256 * 8192 elements are 1,026,048 blocks, 1,002 for each rank.
  constexpr int64_t kHead = 1'050'673'152;
  // q, o: 2 * 8192^2 = 134,217,728; k, v: 2 * 1024 * 8192 = 16,777,216; gate, up, down: 3 * 8192 *
  // 28672 = 704,643,072. 835,584 blocks are 816 for each rank.
  constexpr int64_t kBlock = 855'638'016;
  // 2 * 80 + 1 norms of 8192.
  constexpr int64_t kGains = 1'318'912;
  constexpr int64_t kSharded = kEmbedding + kHead + 80 * kBlock;
  constexpr int64_t kShard = 68'904'960;
  static_assert(1024 * kShard == kSharded);
  constexpr int64_t kWeightSums = 80 * 835'584 + 1'026'048;
  constexpr int64_t kGradientSums = kWeightSums + 129'024;
  constexpr int64_t kTensors = 7 * 80 + 2 + 161;
  // 128256 rows are 4008 words.
  constexpr int64_t kSeenRows = 4 * 4008;

  const ByHand expected = {
      .weights = 2 * kSharded + 4 * kGains,
      .state = 3 * kShard + 2 * kGains,
      .gradients = 4 * (kEmbedding + kHead) + 4 * kGains,
      // Gains of all ranks: 1024 * 4 * 1,318,912 = 5.4 GB, more than the embedding. The gains' own
      // sums are 161 * 8 blocks.
      .communication = 2 * kEmbedding + 5'402'263'552 + 8 * (kGradientSums + 1288) +
                       8 * kWeightSums + (2 * 8 + 5) * kTensors + 4 * 1024 * 161 + 8 * 1024 + 32 +
                       128'256 + 1024 * kSeenRows + 8 * (4 * 83 - 1),
      .data = 4096 * 64 * 8 + (8 + 4096 * 8) + (4096 * 16 + 4096 * 8),
      .copy = 5 * kShard + 6 * kGains,
      .sent = {1023 * (2 * (2 * kShard + 4 * kGains + 4 * kTensors) + 8 * kGradientSums / 1024 +
                       8 * kWeightSums / 1024 + 8 + kSeenRows + 2 * kShard),
               0}};
  RunOptions options = LoadShipped("llama_70b_1024gpu", 1024);
  options.parallel.tensor = 1;
  ASSERT_EQ(options.Finish(1024), absl::OkStatus());
  EXPECT_EQ(CountParameters(options.model).total(), 70'553'706'496);
  EXPECT_EQ(expected.weights, 141'122'633'728);
  EXPECT_EQ(expected.state, 209'352'704);
  EXPECT_EQ(expected.gradients, 8'435'826'688);

  constexpr int64_t kActivation = 67'108'864;
  constexpr int64_t kRow = 16'384;
  // The inputs of all blocks and of the final norm, its output, the residual gradient; the losses
  // and the final norm's scale.
  constexpr int64_t kAll = 83 * kActivation + 2 * kRow;
  // Of the block in work: norm 1, attention's output, middle, norm 2; queries, keys and values
  // [N, (64 + 16) * 128] = 83,886,080; gate and up 469,762,048 and their product 234,881,024; two
  // norms' scales; lse 1,048,576.
  constexpr int64_t kSaved = 4 * kActivation + 83'886'080 + 704'643'072 + 2 * kRow + 1'048'576;
  static_assert(kSaved == 1'058'045'952);
  // The fullest moment on a GPU: the gradients of the branch and of the product of gate and up.
  constexpr int64_t kFullest = kAll + kSaved + kActivation + 234'881'024;
  const StepPlan cuda = PlanFor(options, 1024, kCuda);
  ExpectOutsideOfTheArena(cuda, expected);
  EXPECT_EQ(cuda.arena_bytes, kFullest + kWorkspace);
  EXPECT_EQ(cuda.arena_bytes, 6'997'213'184);

  omp_set_num_threads(1);
  const StepPlan cpu = PlanFor(options, 1024, kCpu);
  ExpectOutsideOfTheArena(cpu, expected);
  // Attention's gradients: of the branch and of its output 1 each, of queries, keys, values.
  constexpr int64_t kAttention = kAll + kSaved + 2 * kActivation + 83'886'080;
  EXPECT_THAT(WithoutProductScratch(cpu),
              AnyOf(kFullest, kAttention, kAttention + AttentionBackwardScratch(4096, 128),
                    kAll + kSaved + kActivation, kAll + kSaved + 2 * kActivation,
                    kAll + kActivation + 1024 * 128256 * 2));
  EXPECT_GE(cpu.arena_bytes, kFullest);
}

}  // namespace
}  // namespace panthera
