// Lazy rows in whole training steps: which rows of the table a step changes, on any number of ranks
// and micro-steps.
#include <algorithm>
#include <cstddef>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include <gmock/gmock.h>

#include "tests/equivalence/tiny_run.h"
#include "tests/support/devices.h"

namespace panthera {
namespace {

using testing::RankWorld;
using testing::RunRanks;
using testing::Tensors;
using testing::TinyRun;

constexpr int64_t kSteps = 3;
constexpr char kTable[] = "model.embed_tokens.weight";

// Two sequences of 6 tokens of a vocabulary of 40, of which the text has 23: a step misses many.
struct ShortSteps : TinyRun {
  ShortSteps() : TinyRun(kSteps) {
    options.model.vocab_size = 40;
    options.model.sequence_length = 6;
    options.train.global_batch = 2;
    options.optim.schedule.warmup_steps = 0;
  }
};

// The tokens that the model reads in a step.
std::set<int32_t> TokensOf(const TinyRun& run, int64_t step) {
  const DataLoader data = run.OpenData();
  const int64_t sequences = run.options.train.global_batch;
  const int64_t length = run.options.model.sequence_length;
  std::vector<int32_t> tokens(static_cast<size_t>(sequences * length));
  std::vector<int32_t> targets(tokens.size());
  CHECK_OK(data.Fill(step * sequences,
                     Tensor(tokens.data(), {sequences, length}, DType::kI32, Device{}),
                     Tensor(targets.data(), {sequences, length}, DType::kI32, Device{})));
  return {tokens.begin(), tokens.end()};
}

// The weights before the first and after every step.
std::vector<Tensors> Train(const TinyRun& run, int ranks, Device device) {
  std::vector<Tensors> states(kSteps + 1);
  std::mutex mutex;
  RunRanks(ranks, [&](RankWorld& rank_world) {
    World world = testing::WorldOf(rank_world, device);
    const std::unique_ptr<Trainer> trainer =
        testing::NewTrainer(run.options, world, rank_world.ledger());
    const DataLoader data = run.OpenData();
    for (int64_t step = 0; step <= kSteps; ++step) {
      if (step > 0) {
        ASSERT_TRUE(trainer->TrainStep(step - 1, &data).ok());
      }
      const std::lock_guard<std::mutex> lock(mutex);
      testing::CopyShards(*trainer, states[static_cast<size_t>(step)]);
    }
  });
  return states;
}

struct Cut {
  const char* name;
  int ranks;
  Algorithm algorithm;
  Accumulation accumulate;
};

class LazyStepsTest : public ::testing::TestWithParam<std::tuple<Device, Cut>> {};

INSTANTIATE_TEST_SUITE_P(
    Cuts, LazyStepsTest,
    ::testing::Combine(
        ::testing::ValuesIn(testing::ComputeDevices()),
        ::testing::Values(Cut{"TigerTwoMicroSteps", 1, Algorithm::kTiger, Accumulation::kMomentum},
                          Cut{"TigerTwoRanks", 2, Algorithm::kTiger, Accumulation::kMomentum},
                          Cut{"LionTwoRanks", 2, Algorithm::kLion, Accumulation::kGradient})),
    [](const auto& test) {
      return std::string(std::get<0>(test.param).is_cpu() ? "cpu" : "cuda") +
             std::get<1>(test.param).name;
    });

TEST_P(LazyStepsTest, AStepChangesTheRowsOfItsTokensAndNoOthers) {
  const auto& [device, cut] = GetParam();
  ShortSteps run;
  run.options.optim.algorithm = cut.algorithm;
  run.options.optim.accumulate = cut.accumulate;
  const std::vector<Tensors> states = Train(run, cut.ranks, device);
  const auto width = static_cast<size_t>(run.options.model.width);
  bool some_row_pauses = false;
  std::set<int32_t> before;
  for (int64_t step = 0; step < kSteps; ++step) {
    const std::set<int32_t> tokens = TokensOf(run, step);
    const std::vector<float>& old_table = states[static_cast<size_t>(step)].at(kTable);
    const std::vector<float>& new_table = states[static_cast<size_t>(step) + 1].at(kTable);
    for (int32_t row = 0; row < 40; ++row) {
      const auto first = static_cast<std::ptrdiff_t>(static_cast<size_t>(row) * width);
      const bool kept = std::equal(new_table.begin() + first,
                                   new_table.begin() + first + static_cast<std::ptrdiff_t>(width),
                                   old_table.begin() + first);
      EXPECT_EQ(kept, tokens.count(row) == 0) << "row " << row << " in step " << step;
      some_row_pauses = some_row_pauses || (before.count(row) != 0 && tokens.count(row) == 0);
    }
    before = tokens;
  }
  // A row with momentum that rests is what lazy rows are about.
  EXPECT_TRUE(some_row_pauses);
}

TEST(LazyStepsOffTest, EveryRowDecays) {
  ShortSteps run;
  run.options.optim.lazy_rows = LazyRows::kOff;
  const std::vector<Tensors> states = Train(run, 2, Device{});
  const std::vector<float>& table = states[0].at(kTable);
  const std::vector<float>& next = states[1].at(kTable);
  for (size_t i = 0; i < table.size(); ++i) {
    EXPECT_NE(next[i], table[i]) << i;
  }
}

// Other parameters do not notice in the first step, whose gradients are the same.
TEST(LazyStepsOffTest, TheFirstStepDiffersInUnseenRowsOnly) {
  ShortSteps lazy;
  ShortSteps plain;
  plain.options.optim.lazy_rows = LazyRows::kOff;
  const std::vector<Tensors> lazy_states = Train(lazy, 1, Device{});
  const std::vector<Tensors> plain_states = Train(plain, 1, Device{});
  const std::set<int32_t> tokens = TokensOf(lazy, 0);
  const auto width = static_cast<size_t>(lazy.options.model.width);
  for (const auto& [name, tensor] : plain_states[1]) {
    const std::vector<float>& actual = lazy_states[1].at(name);
    for (size_t i = 0; i < tensor.size(); ++i) {
      const bool unseen = name == kTable && tokens.count(static_cast<int32_t>(i / width)) == 0;
      ASSERT_EQ(actual[i], unseen ? lazy_states[0].at(name)[i] : tensor[i]) << name << " " << i;
    }
  }
}

}  // namespace
}  // namespace panthera
