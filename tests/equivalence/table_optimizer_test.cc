// AdamW on the embedding in whole training steps.
#include <cmath>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <gmock/gmock.h>

#include "tests/equivalence/tiny_run.h"

namespace panthera {
namespace {

using testing::RankWorld;
using testing::RunRanks;
using testing::Tensors;
using testing::TinyRun;

struct BeforeAndAfter {
  Tensors before;
  Tensors after;
};

BeforeAndAfter TakeOneStep(const TinyRun& run, int ranks) {
  BeforeAndAfter tensors;
  std::mutex mutex;
  RunRanks(ranks, [&](RankWorld& rank_world) {
    World world = testing::WorldOf(rank_world);
    const std::unique_ptr<Trainer> trainer =
        testing::NewTrainer(run.options, world, rank_world.ledger());
    const DataLoader data = run.OpenData();
    {
      const std::lock_guard<std::mutex> lock(mutex);
      testing::CopyShards(*trainer, tensors.before);
    }
    ASSERT_TRUE(trainer->TrainStep(0, &data).ok());
    const std::lock_guard<std::mutex> lock(mutex);
    testing::CopyShards(*trainer, tensors.after);
  });
  return tensors;
}

class TableRateTest : public ::testing::TestWithParam<Accumulation> {};

INSTANTIATE_TEST_SUITE_P(All, TableRateTest,
                         ::testing::Values(Accumulation::kMomentum, Accumulation::kGradient),
                         [](const auto& test) { return std::string(EnumName(test.param)); });

// AdamW's first step is the sign of the gradient times the rate, but for |g| of about epsilon =
// 1e-8 (and for g = 0, in rows that no token names); here 0.25 of the peak rate.
TEST_P(TableRateTest, IsThatOfTheTableTimesTheSchedule) {
  constexpr double kRate = 0.25 * 0.02;
  TinyRun run(2);
  run.options.optim.accumulate = GetParam();
  run.options.optim.table.optimizer = TableOptimizer::kAdamW;
  run.options.optim.table.learning_rate = 0.02;
  run.options.optim.table.weight_decay = 0;
  run.options.optim.schedule.kind = ScheduleKind::kPiecewise;
  run.options.optim.schedule.warmup_steps = 0;
  run.options.optim.schedule.points = {{.step = 0, .factor = 0.25}};
  for (const int ranks : {1, 3}) {
    const BeforeAndAfter tensors = TakeOneStep(run, ranks);
    const std::string table = "model.embed_tokens.weight";
    const std::vector<float>& before = tensors.before.at(table);
    const std::vector<float>& after = tensors.after.at(table);
    int64_t full_steps = 0;
    for (size_t i = 0; i < before.size(); ++i) {
      const double change = std::abs(static_cast<double>(after[i] - before[i]));
      // Rounded to the table's numbers, which are below 1.
      EXPECT_LE(change, kRate + 0x1p-23);
      full_steps += change > 0.999 * kRate ? 1 : 0;
    }
    EXPECT_GT(full_steps, static_cast<int64_t>(before.size()) * 9 / 10) << ranks << " ranks";
    EXPECT_EQ(tensors.after.count(table + "|momentum"), 0U);
    EXPECT_EQ(tensors.after.count(table + "|moment2"), 1U);
    EXPECT_EQ(tensors.after.count("lm_head.weight|momentum"), 1U);
    EXPECT_EQ(tensors.after.count("lm_head.weight|moment2"), 0U);
  }
}

}  // namespace
}  // namespace panthera
