#include "launcher/run_options.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace panthera {
namespace {

RunOptions Valid() {
  RunOptions options;
  options.model.vocab_size = 256;
  options.model.width = 64;
  options.model.layers = 2;
  options.model.heads = 4;
  options.model.ffn_width = 128;
  options.model.sequence_length = 32;
  options.data.train = {{.path = "a.bin", .weight = 1}};
  options.train.steps = 100;
  options.train.global_batch = 24;
  options.train.micro_batch = 4;
  options.train.run_dir = "runs/t";
  return options;
}

std::string FinishError(RunOptions options, int world_size) {
  return std::string(options.Finish(world_size).message());
}

std::string MicroStepsError(int64_t global_batch, int64_t micro_batch, int64_t ranks) {
  TrainOptions train;
  train.global_batch = global_batch;
  train.micro_batch = micro_batch;
  return std::string(CountMicroSteps(train, ranks).status().message());
}

TEST(CountMicroStepsTest, DividesTheBatchAmongRanksAndMicroSteps) {
  TrainOptions train;
  train.global_batch = 24;
  train.micro_batch = 4;
  EXPECT_EQ(*CountMicroSteps(train, 1), 6);
  EXPECT_EQ(*CountMicroSteps(train, 2), 3);
  EXPECT_EQ(*CountMicroSteps(train, 6), 1);
}

TEST(CountMicroStepsTest, ErrorsNameTheValuesThatWork) {
  EXPECT_EQ(MicroStepsError(24, 5, 2),
            "train.global_batch = 24 does not divide into train.micro_batch = 5 x 2 data-parallel "
            "ranks: use a global_batch that is a multiple of 10, or micro_batch 1, 2, 3, 4, 6, 12");
  EXPECT_EQ(MicroStepsError(20, 4, 3),
            "train.global_batch = 20 does not divide into train.micro_batch = 4 x 3 data-parallel "
            "ranks: use a global_batch that is a multiple of 12, or start 1, 5 data-parallel "
            "ranks");
  EXPECT_EQ(MicroStepsError(10, 4, 3),
            "train.global_batch = 10 does not divide into train.micro_batch = 4 x 3 data-parallel "
            "ranks: use a global_batch that is a multiple of 12");
}

TEST(CountMicroStepsTest, TheSuggestedMicroBatchesWork) {
  TrainOptions train;
  train.global_batch = 720;
  for (const int64_t micro_batch : {1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 15, 18, 20, 24, 30, 360}) {
    train.micro_batch = micro_batch;
    EXPECT_TRUE(CountMicroSteps(train, 2).ok()) << micro_batch;
  }
  EXPECT_THAT(MicroStepsError(720, 7, 2),
              ::testing::EndsWith("or micro_batch 40, 45, 60, 72, 90, 120, 180, 360"));
}

TEST(RunOptionsTest, FinishAcceptsAndFillsIn) {
  RunOptions options = Valid();
  ASSERT_TRUE(options.Finish(2).ok());
  EXPECT_EQ(options.model.kv_heads, 4);
  EXPECT_EQ(options.model.head_width, 16);
  EXPECT_EQ(options.optim.beta1, 0.965);
  EXPECT_EQ(options.parallel.data, 0);
}

TEST(RunOptionsTest, FinishMayBeCalledAgainForOtherRanks) {
  RunOptions options = Valid();
  ASSERT_TRUE(options.Finish(2).ok());
  EXPECT_EQ(options.Finish(3), absl::OkStatus());
}

TEST(RunOptionsTest, TensorParallelRanksShareABatch) {
  RunOptions options = Valid();
  options.parallel.tensor = 2;
  options.train.global_batch = 8;
  EXPECT_EQ(FinishError(options, 4), "");  // 2 data-parallel ranks; 4 would be too many
}

TEST(RunOptionsTest, FinishChecksEveryComponent) {
  RunOptions options = Valid();
  options.model.heads = 3;
  EXPECT_EQ(FinishError(options, 1),
            "model.width = 64 does not divide into model.heads = 3; change one of them or set "
            "model.head_width");
  options = Valid();
  options.optim.algorithm = Algorithm::kLion;
  EXPECT_THAT(FinishError(options, 1), ::testing::HasSubstr("optim.accumulate"));
  options = Valid();
  options.optim.schedule.warmup_steps = 101;
  EXPECT_THAT(FinishError(options, 1), ::testing::HasSubstr("schedule.warmup_steps"));
  options = Valid();
  options.parallel.tensor = 2;
  EXPECT_THAT(FinishError(options, 3), ::testing::HasSubstr("parallel.tensor = 2"));
  EXPECT_THAT(FinishError(Valid(), 5), ::testing::HasSubstr("train.global_batch = 24"));
}

TEST(RunOptionsTest, FinishNamesWhatTensorParallelRanksCannotShare) {
  RunOptions options = Valid();
  options.parallel.tensor = 6;
  EXPECT_EQ(FinishError(options, 6),
            "model.heads = 4 cannot be shared among 6 tensor-parallel ranks; use a "
            "parallel.tensor of at most 4");
  options = Valid();
  options.parallel.tensor = 4;
  options.model.kv_heads = 1;
  options.model.head_width = 2;
  EXPECT_EQ(FinishError(options, 4),
            "model.kv_heads x model.head_width = 2 cannot be shared among 4 tensor-parallel ranks; "
            "use a parallel.tensor of at most 2");
  options = Valid();
  options.parallel.tensor = 4;
  options.model.vocab_size = 3;
  EXPECT_EQ(FinishError(options, 4),
            "model.vocab_size = 3 cannot be shared among 4 tensor-parallel ranks; use a "
            "parallel.tensor of at most 3");
  options = Valid();
  options.parallel.tensor = 4;
  options.model.ffn_width = 1;
  EXPECT_EQ(FinishError(options, 4),
            "model.ffn_width = 1 cannot be shared among 4 tensor-parallel ranks; use a "
            "parallel.tensor of at most 1");
}

TEST(RunOptionsTest, TensorParallelPartsNeedNotBeEqual) {
  RunOptions options = Valid();
  options.parallel.tensor = 3;
  options.model.kv_heads = 2;
  options.model.vocab_size = 257;
  options.model.ffn_width = 125;
  options.model.sequence_length = 31;
  EXPECT_EQ(options.Finish(3), absl::OkStatus());
}

TEST(RunOptionsTest, LazyRowsFollowTheRuleAndTheTie) {
  const struct {
    Algorithm algorithm;
    Tie tie;
    LazyRows expected;
    TableOptimizer table = TableOptimizer::kSame;
  } table[] = {
      {Algorithm::kTiger, Tie::kNone, LazyRows::kChange},
      {Algorithm::kTiger, Tie::kTied, LazyRows::kOff},
      {Algorithm::kTiger, Tie::kSwapHalves, LazyRows::kOff},
      {Algorithm::kLion, Tie::kNone, LazyRows::kChange},
      {Algorithm::kLion, Tie::kTied, LazyRows::kOff},
      {Algorithm::kAdamW, Tie::kNone, LazyRows::kOff},
      {Algorithm::kAdamW, Tie::kTied, LazyRows::kOff},
      {Algorithm::kTiger, Tie::kNone, LazyRows::kOff, TableOptimizer::kAdamW},
      {Algorithm::kLion, Tie::kTied, LazyRows::kOff, TableOptimizer::kAdamW},
  };
  for (const auto& row : table) {
    RunOptions options = Valid();
    options.optim.algorithm = row.algorithm;
    options.optim.accumulate = Accumulation::kGradient;
    options.optim.table.optimizer = row.table;
    options.model.tie = row.tie;
    ASSERT_EQ(FinishError(options, 1), "");
    ASSERT_TRUE(options.Finish(1).ok());
    EXPECT_EQ(options.optim.lazy_rows, row.expected)
        << EnumName(row.algorithm) << " " << EnumName(row.tie);
    EXPECT_TRUE(options.Finish(2).ok()) << "finished options are valid";
    EXPECT_EQ(options.optim.lazy_rows, row.expected);
  }
  RunOptions off = Valid();
  off.optim.lazy_rows = LazyRows::kOff;
  ASSERT_TRUE(off.Finish(1).ok());
  EXPECT_EQ(off.optim.lazy_rows, LazyRows::kOff);
}

TEST(RunOptionsTest, FinishRefusesLazyRowsOfATiedTable) {
  RunOptions options = Valid();
  options.model.tie = Tie::kSwapHalves;
  options.optim.lazy_rows = LazyRows::kChange;
  EXPECT_EQ(FinishError(options, 1),
            "optim.lazy_rows = \"change\" would keep rows back that have a gradient in every step, "
            "because model.tie = \"swap_halves\" makes the embedding the output matrix too: set "
            "optim.lazy_rows = \"off\" or model.tie = \"none\"");
}

TEST(RunOptionsTest, FinishNamesMissingData) {
  RunOptions options = Valid();
  options.data.train.clear();
  EXPECT_EQ(FinishError(options, 1),
            "data.train is empty: add a [[data.train]] table with the `path` of a token file");
  options = Valid();
  options.data.train.push_back({});
  EXPECT_EQ(FinishError(options, 1), "data.train[1].path is missing: name a token file");
  options = Valid();
  options.data.validation.push_back({});
  EXPECT_EQ(FinishError(options, 1), "data.validation[0].path is missing: name a token file");
  options = Valid();
  options.eval.every = 10;
  EXPECT_EQ(FinishError(options, 1),
            "eval.every = 10 needs data to measure on: add a [[data.validation]] table, or set "
            "eval.every = 0");
}

TEST(RunOptionsTest, FinishNamesCheckpointsThatWouldNeverBeKept) {
  RunOptions options = Valid();
  options.checkpoint.every = 20;
  options.checkpoint.keep_every = 40;
  EXPECT_EQ(FinishError(options, 1), "");
  options.checkpoint.keep_every = 50;
  EXPECT_EQ(FinishError(options, 1),
            "checkpoint.keep_every = 50 is not a multiple of checkpoint.every = 20, so there would "
            "be no checkpoint to keep; make it one");
  options.checkpoint.every = 0;
  EXPECT_THAT(FinishError(options, 1), ::testing::StartsWith("checkpoint.keep_every = 50"));
}

TEST(RunOptionsTest, FinishAsksForARunDirectory) {
  RunOptions options = Valid();
  options.train.run_dir.clear();
  EXPECT_EQ(FinishError(options, 1),
            "train.run_dir is missing: name the folder for checkpoints and logs, such as "
            "\"runs/first\"");
}

}  // namespace
}  // namespace panthera
