#include "launcher/memory_advice.h"

#include <sstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>

#include "tests/equivalence/tiny_run.h"

namespace panthera {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using testing::TinyRun;

int64_t Planned(RunOptions options, int ranks, Device target = {}) {
  CHECK_OK(options.Finish(ranks));
  absl::StatusOr<World> world = PlanWorld(options.parallel, ranks);
  CHECK_OK(world.status());
  return Trainer::Plan(options, *world, target).total_bytes();
}

std::vector<std::string> Lines(const RunOptions& options, int ranks, int64_t memory) {
  std::istringstream text(AdviseForMemory(options, ranks, {}, memory));
  std::vector<std::string> lines;
  for (std::string line; std::getline(text, line);) {
    lines.push_back(line);
  }
  return lines;
}

TEST(MemoryAdviceTest, HalvesTheMicroBatchUntilItFits) {
  TinyRun run(2);
  run.options.train.micro_batch = 12;
  RunOptions smaller = run.options;
  smaller.train.micro_batch = 3;
  EXPECT_THAT(Lines(run.options, 1, Planned(smaller, 1)),
              ElementsAre(EndsWith("with train.micro_batch = 6"),
                          ::testing::AllOf(StartsWith("  fits"),
                                           HasSubstr(FormatBytes(Planned(smaller, 1))),
                                           EndsWith("with train.micro_batch = 3"))));
}

TEST(MemoryAdviceTest, RecomputesWithTheSmallestMicroBatch) {
  TinyRun run(2);
  run.options.train.micro_batch = 2;
  run.options.model.layers = 8;
  RunOptions smaller = run.options;
  smaller.train.micro_batch = 1;
  smaller.model.recompute = Recompute::kBlock;
  const std::vector<std::string> lines = Lines(run.options, 1, Planned(smaller, 1));
  ASSERT_EQ(lines.size(), 2);
  EXPECT_THAT(lines[1], EndsWith("with train.micro_batch = 1, model.recompute = \"block\""));
  EXPECT_THAT(lines[1], StartsWith("  fits"));
}

TEST(MemoryAdviceTest, SavesFromNoCopyAfterAllElseThatCostsTimeAlone) {
  TinyRun run(2);
  run.options.model.recompute = Recompute::kBlock;
  RunOptions smaller = run.options;
  smaller.checkpoint.staging = CheckpointStaging::kNone;
  const std::vector<std::string> lines = Lines(run.options, 1, Planned(smaller, 1));
  ASSERT_EQ(lines.size(), 1);
  EXPECT_THAT(lines[0], StartsWith("  fits"));
  EXPECT_THAT(lines[0], EndsWith("with checkpoint.staging = \"none\""));
}

// It lies in the memory of the host.
TEST(MemoryAdviceTest, TheCopyOfAGpuIsNotWhatItsMemoryIsShortOf) {
  TinyRun run(2);
  EXPECT_THAT(AdviseForMemory(run.options, 1, {DeviceKind::kCuda, 0}, 1),
              Not(HasSubstr("checkpoint.staging")));
}

// The same bits with more traffic.
TEST(MemoryAdviceTest, SendsWholeWeightsWhereDirectionsDoNotFit) {
  TinyRun run(2);
  run.options.optim.weights = WeightStorage::kBf16Plus8;
  run.options.optim.publish = PublishMode::kDirection;
  run.options.model.recompute = Recompute::kBlock;
  RunOptions smaller = run.options;
  smaller.optim.publish = PublishMode::kWeights;
  const std::vector<std::string> lines = Lines(run.options, 2, Planned(smaller, 2));
  ASSERT_EQ(lines.size(), 1);
  EXPECT_THAT(lines[0], StartsWith("  fits"));
  EXPECT_THAT(lines[0], EndsWith("with optim.publish = \"weights\""));
}

TEST(MemoryAdviceTest, MarksExactlyTheChangesThatRoundDifferently) {
  TinyRun run(2);
  run.options.optim.accumulate = Accumulation::kGradient;
  const std::string text = AdviseForMemory(run.options, 1, {}, 1);
  EXPECT_THAT(text, HasSubstr("optim.accumulate = \"momentum\" (changes rounding)"));
  EXPECT_THAT(text, HasSubstr("optim.weights = \"bf16+8\" (changes rounding)"));
  EXPECT_THAT(text, HasSubstr("optim.momentum = \"bf16\" (changes rounding)"));
  EXPECT_THAT(text, Not(HasSubstr("\"block\" (changes")));
  EXPECT_THAT(text, Not(HasSubstr("ranks (changes")));
  EXPECT_THAT(text, HasSubstr("nothing of this fits"));
}

TEST(MemoryAdviceTest, MoreRanksAloneFitWithoutAChangeOfRounding) {
  TinyRun run(2);
  run.options.checkpoint.staging = CheckpointStaging::kNone;
  run.options.model.recompute = Recompute::kBlock;
  const std::vector<std::string> lines = Lines(run.options, 1, Planned(run.options, 2));
  ASSERT_FALSE(lines.empty());
  EXPECT_THAT(lines.back(), StartsWith("  fits"));
  EXPECT_THAT(lines.back(), EndsWith("with 2 ranks"));
}

TEST(MemoryAdviceTest, SuggestsOnlyRanksAmongWhomTheBatchDivides) {
  TinyRun run(2);
  run.options.checkpoint.staging = CheckpointStaging::kNone;
  run.options.model.recompute = Recompute::kBlock;
  const std::string text = AdviseForMemory(run.options, 1, {}, 1);
  // The global batch is 12.
  for (const char* possible : {"with 2 ranks", "with 4 ranks", "with 12 ranks"}) {
    EXPECT_THAT(text, HasSubstr(possible));
  }
  EXPECT_THAT(text, Not(HasSubstr("with 8 ranks")));
}

TEST(MemoryAdviceTest, RanksShareEachLayerWhereThatTakesLess) {
  TinyRun run(2);
  run.options.model.recompute = Recompute::kBlock;
  run.options.checkpoint.staging = CheckpointStaging::kNone;
  run.options.model.ffn_width = 256;
  RunOptions shared = run.options;
  shared.parallel.tensor = 2;
  ASSERT_LT(Planned(shared, 4), Planned(run.options, 4));
  const std::vector<std::string> lines = Lines(run.options, 4, Planned(shared, 4));
  ASSERT_FALSE(lines.empty());
  EXPECT_THAT(lines.back(), StartsWith("  fits"));
  EXPECT_THAT(lines.back(), HasSubstr(FormatBytes(Planned(shared, 4))));
  EXPECT_THAT(lines.back(), EndsWith("with parallel.tensor = 2"));
}

// One rank has nobody to share with.
TEST(MemoryAdviceTest, ThereAreAsManyRanksAsShareEachLayer) {
  TinyRun run(2);
  run.options.model.recompute = Recompute::kBlock;
  run.options.checkpoint.staging = CheckpointStaging::kNone;
  run.options.model.ffn_width = 256;
  run.options.parallel.data = 1;
  RunOptions shared = run.options;
  shared.parallel.tensor = 2;
  EXPECT_THAT(Lines(run.options, 1, Planned(shared, 2)).back(),
              EndsWith("with 2 ranks, parallel.tensor = 2, parallel.data = 0"));
}

TEST(MemoryAdviceTest, SharedLayersAreNotNamedWhereTheyTakeMore) {
  TinyRun run(2);
  run.options.model.recompute = Recompute::kBlock;
  // What travels about the logits of a token takes more than the token's features.
  run.options.model.width = 4;
  run.options.model.head_width = 2;
  run.options.model.ffn_width = 2;
  run.options.model.vocab_size = 4;
  run.options.model.layers = 1;
  run.options.model.sequence_length = 1024;
  RunOptions shared = run.options;
  shared.parallel.tensor = 2;
  // Where threads have no scratch of their own.
  const Device gpu{DeviceKind::kCuda, 0};
  ASSERT_GT(Planned(shared, 2, gpu), Planned(run.options, 2, gpu));
  EXPECT_THAT(AdviseForMemory(run.options, 2, gpu, 1), Not(HasSubstr("parallel.tensor")));
}

TEST(MemoryAdviceTest, MoreRanksReplaceAFixedNumberOfDataRanks) {
  TinyRun run(2);
  run.options.parallel.data = 2;
  EXPECT_THAT(AdviseForMemory(run.options, 2, {}, 1), HasSubstr("4 ranks, parallel.data = 0"));
}

}  // namespace
}  // namespace panthera
