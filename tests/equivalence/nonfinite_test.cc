// Training goes on over gradients that are not finite: what a rank met, what all ranks do about it,
// and how a run ends that meets too many.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>

#include "launcher/exit_codes.h"
#include "launcher/training_run.h"
#include "runtime/checkpoint/checkpoint.h"
#include "tests/equivalence/tiny_run.h"

namespace panthera {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::RankWorld;
using testing::RunRanks;
using testing::Tensors;
using testing::TinyRun;

// Overwrites one number of what this rank's layers read; returns the number before.
float Poison(Trainer& trainer, ParamId id, int64_t element, float value) {
  const Tensor tensor = trainer.instance().params().value(id);
  float before = 0;
  DispatchFloat(tensor.dtype(), [&]<typename T>() {
    T& number = tensor.data<T>()[element];
    before = static_cast<float>(number);
    number = static_cast<T>(value);
  });
  return before;
}

// The output matrix is small enough to be rank 0's alone: what another rank reads is a copy, which
// comes anew with every Publish. Poisoned, it makes all gradients of that rank NaN.
ParamId Head(Trainer& trainer) { return *trainer.instance().params().Find("lm_head.weight"); }

// What the layers of this rank read, byte for byte.
std::string ValuesOf(Trainer& trainer) {
  const ParameterStore& params = trainer.instance().params();
  std::string bytes;
  for (int p = 0; p < params.num_params(); ++p) {
    const Tensor value = params.value(ParamId{p});
    bytes.append(reinterpret_cast<const char*>(value.bytes_data()),
                 static_cast<size_t>(value.bytes()));
  }
  return bytes;
}

struct Rule {
  const char* name;
  Algorithm algorithm;
  Accumulation accumulate;
};
constexpr Rule kTigerRule = {"Tiger", Algorithm::kTiger, Accumulation::kGradient};
constexpr Rule kLionRule = {"Lion", Algorithm::kLion, Accumulation::kGradient};
constexpr Rule kAdamWRule = {"AdamW", Algorithm::kAdamW, Accumulation::kGradient};

using SkipCase = std::tuple<Rule, WeightStorage, int>;

std::string SkipCaseName(const ::testing::TestParamInfo<SkipCase>& test) {
  const auto [rule, weights, ranks] = test.param;
  std::string name = absl::StrCat(rule.name, "_", EnumName(weights), "_", ranks);
  std::replace_if(
      name.begin(), name.end(), [](char c) { return c == '+'; }, '_');
  return name;
}

class SkippedStepTest : public ::testing::TestWithParam<SkipCase> {};

INSTANTIATE_TEST_SUITE_P(
    All, SkippedStepTest,
    ::testing::Combine(::testing::Values(kTigerRule, kLionRule, kAdamWRule),
                       ::testing::Values(WeightStorage::kFp32, WeightStorage::kBf16Plus8,
                                         WeightStorage::kBf16, WeightStorage::kBf16PlusFp32),
                       ::testing::Values(1, 2, 4)),
    SkipCaseName);

TEST_P(SkippedStepTest, OneRanksNanKeepsEveryBitOfWeightsAndStateOnAllRanks) {
  const auto [rule, weights, ranks] = GetParam();
  TinyRun run(4);
  run.options.optim.algorithm = rule.algorithm;
  run.options.optim.accumulate = rule.accumulate;
  run.options.optim.weights = weights;
  run.options.optim.clip_norm = 0.5;
  RunRanks(ranks, [&](RankWorld& rank_world) {
    World world = testing::WorldOf(rank_world);
    const auto trainer = testing::NewTrainer(run.options, world, rank_world.ledger());
    const DataLoader data = run.OpenData();
    for (int64_t step = 0; step < 2; ++step) {
      ASSERT_FALSE(trainer->TrainStep(step, &data)->nonfinite.found);
    }
    Tensors before;
    testing::CopyShards(*trainer, before);
    const std::string values_before = ValuesOf(*trainer);

    const bool poisoned = world.mesh.data_rank == ranks - 1;
    const float sound = poisoned ? Poison(*trainer, Head(*trainer), 7, NAN) : 0;
    const StepResult result = *trainer->TrainStep(2, &data);
    if (poisoned && ranks == 1) {
      // With more ranks the owner's number has come again.
      Poison(*trainer, Head(*trainer), 7, sound);
    }

    EXPECT_TRUE(result.nonfinite.found);
    EXPECT_TRUE(result.nonfinite.skipped);
    EXPECT_EQ(static_cast<int>(result.nonfinite.tensors.size()),
              trainer->instance().params().num_params());
    EXPECT_FALSE(std::isfinite(result.loss_nats));
    Tensors after;
    testing::CopyShards(*trainer, after);
    EXPECT_TRUE(after == before);
    EXPECT_TRUE(ValuesOf(*trainer) == values_before);
    const StepResult next = *trainer->TrainStep(3, &data);
    EXPECT_FALSE(next.nonfinite.found);
    EXPECT_TRUE(std::isfinite(next.loss_nats));
    EXPECT_TRUE(trainer->HoldsOnlyFiniteNumbers());
    testing::CopyShards(*trainer, after);
    EXPECT_FALSE(after == before);
  });
}

class MaskedStepTest : public ::testing::TestWithParam<std::tuple<WeightStorage, int>> {};

INSTANTIATE_TEST_SUITE_P(
    All, MaskedStepTest,
    ::testing::Combine(::testing::Values(WeightStorage::kFp32, WeightStorage::kBf16Plus8,
                                         WeightStorage::kBf16, WeightStorage::kBf16PlusFp32),
                       ::testing::Values(2, 3, 4)));

// A token's row in the table, as the last rank reads it, is NaN: that rank's micro-gradients of all
// tensors are bad where, and only where, its micro-batch has the token.
TEST_P(MaskedStepTest, MicroGradientsOfOneRankAreMaskedOnAllRanks) {
  const auto [weights, ranks] = GetParam();
  TinyRun run(2);
  run.options.optim.weights = weights;
  run.options.optim.weight_decay = 0;
  const int64_t micro_steps = run.options.train.global_batch / ranks;
  const int64_t tokens = run.options.model.sequence_length;
  // In which micro-steps of step 1 the last rank meets a token of a row that is rank 0's.
  const auto meets = [&](const DataLoader& data, int32_t token) {
    std::vector<bool> met;
    for (int64_t micro = 0; micro < micro_steps; ++micro) {
      std::vector<int32_t> ids(static_cast<size_t>(tokens));
      std::vector<int32_t> targets(ids.size());
      const int64_t sample = run.options.train.global_batch + micro * ranks + ranks - 1;
      CHECK_OK(data.Fill(sample, Tensor(ids.data(), {1, tokens}, DType::kI32, Device{}),
                         Tensor(targets.data(), {1, tokens}, DType::kI32, Device{})));
      met.push_back(std::find(ids.begin(), ids.end(), token) != ids.end());
    }
    return met;
  };
  int last_was_good = 0;
  int last_was_bad = 0;
  for (int32_t token = 0; token < 5; ++token) {
    RunRanks(ranks, [&](RankWorld& rank_world) {
      World world = testing::WorldOf(rank_world);
      const auto trainer = testing::NewTrainer(run.options, world, rank_world.ledger());
      const ParameterStore& params = trainer->instance().params();
      const DataLoader data = run.OpenData();
      ASSERT_TRUE(trainer->TrainStep(0, &data).ok());
      Tensors before;
      testing::CopyShards(*trainer, before);
      if (world.mesh.data_rank == ranks - 1) {
        const int64_t element = token * run.options.model.width;
        Poison(*trainer, trainer->instance().model().embedding(), element, NAN);
      }

      const StepResult result = *trainer->TrainStep(1, &data);

      const std::vector<bool> met = meets(data, token);
      const int64_t bad = std::count(met.begin(), met.end(), true);
      EXPECT_EQ(result.nonfinite.masked_gradients, bad * params.num_params());
      EXPECT_EQ(result.nonfinite.found, bad > 0);
      EXPECT_FALSE(result.nonfinite.skipped);
      EXPECT_TRUE(std::isfinite(result.gradient_norm));
      EXPECT_TRUE(trainer->HoldsOnlyFiniteNumbers());
      Tensors after;
      testing::CopyShards(*trainer, after);
      if (rank_world.rank() == 0) {
        (met.back() ? last_was_bad : last_was_good) += 1;
      }
      for (const auto& [name, theta] : before) {
        if (name.find('|') != std::string::npos) {
          // The momentum stays only if all of its micro-gradients were bad.
          EXPECT_EQ(after.at(name) == theta, bad == micro_steps) << name;
          continue;
        }
        const double centre = name.find("norm") != std::string::npos ? 1 : 0;
        const double factor = std::pow(0.99, static_cast<double>(bad));
        for (size_t i = 0; i < theta.size() && met.back(); ++i) {
          const double expected = centre + factor * (static_cast<double>(theta[i]) - centre);
          // Rounded in fp32 four times and stored, at worst in the 8 bits of bf16.
          const double unit = weights == WeightStorage::kBf16        ? 0x1p-7
                              : weights == WeightStorage::kBf16Plus8 ? 0x1p-15
                                                                     : 0x1p-22;
          ASSERT_NEAR(static_cast<double>(after.at(name)[i]), expected,
                      (unit + 0x1p-22) * (1 + std::abs(expected)))
              << name << " " << i;
        }
      }
    });
  }
  EXPECT_GT(last_was_good, 0);
  EXPECT_GT(last_was_bad, 0);
}

// What happens on a rank after each of its steps; true asks to stop.
using AfterStep = std::function<bool(TrainingRun&, int rank, int64_t done)>;

struct Outcome {
  std::vector<int> exit_codes;
  Tensors tensors;
};

// Goes on with the run, whose next step is `first` + 1.
Outcome Train(const TinyRun& run, int ranks, int64_t first, const AfterStep& after_step) {
  Outcome outcome;
  std::mutex mutex;
  RunRanks(ranks, [&](RankWorld& rank_world) {
    World world = testing::WorldOf(rank_world);
    RunOptions options = run.options;
    ASSERT_EQ(options.Finish(ranks), absl::OkStatus());
    absl::StatusOr<std::unique_ptr<TrainingRun>> training =
        TrainingRun::Open(options, StartMode::kResume, world);
    ASSERT_TRUE(training.ok()) << training.status();
    int64_t done = first;
    const absl::StatusOr<int> exit_code =
        (*training)->Run([&] { return after_step(**training, rank_world.rank(), ++done); });
    ASSERT_TRUE(exit_code.ok()) << exit_code.status();
    const std::lock_guard<std::mutex> lock(mutex);
    outcome.exit_codes.push_back(*exit_code);
    testing::CopyShards((*training)->trainer(), outcome.tensors);
  });
  return outcome;
}

// Makes the steps after those in `steps` meet NaNs on rank 1, whose copy heals in the same step.
AfterStep PoisonAfter(std::vector<int64_t> steps) {
  return [steps = std::move(steps)](TrainingRun& training, int rank, int64_t done) {
    if (rank == 1 && std::find(steps.begin(), steps.end(), done) != steps.end()) {
      Poison(training.trainer(), Head(training.trainer()), 3, NAN);
    }
    return false;
  };
}

class NonFiniteRunTest : public ::testing::TestWithParam<Accumulation> {
 protected:
  NonFiniteRunTest() {
    run_.options.optim.accumulate = GetParam();
    run_.options.checkpoint.every = 2;
    run_.options.checkpoint.keep = 10;
    // Numbers are made bad behind the run's back, and a check would end it for that.
    run_.options.train.check_every = 0;
  }

  static std::string Metrics(const TinyRun& run) {
    PosixFileSystem files;
    return *ReadFile(files, run.options.train.run_dir + "/metrics.jsonl");
  }
  static std::string MetricsLine(const TinyRun& run, int64_t step) {
    const std::string all = Metrics(run);
    const size_t begin = all.find("{\"step\":" + std::to_string(step) + ",");
    return begin == std::string::npos ? "" : all.substr(begin, all.find('\n', begin) - begin);
  }
  bool HasCheckpoint(int64_t step) const {
    return std::filesystem::exists(CheckpointDirectory(run_.options.train.run_dir, step));
  }
  bool IsMarkedFinite(int64_t step) {
    const auto checkpoint =
        Checkpoint::Open(files_, CheckpointDirectory(run_.options.train.run_dir, step));
    return checkpoint.ok() && checkpoint->manifest().finite;
  }

  TinyRun run_{8};
  PosixFileSystem files_;
};

INSTANTIATE_TEST_SUITE_P(Accumulations, NonFiniteRunTest,
                         ::testing::Values(Accumulation::kMomentum, Accumulation::kGradient),
                         [](const auto& test) {
                           return test.param == Accumulation::kMomentum ? "Momentum" : "Gradient";
                         });

TEST_P(NonFiniteRunTest, ARunWithinItsBudgetGoesOnToTheEnd) {
  run_.options.optim.skip_budget = 2;

  const Outcome outcome = Train(run_, 2, 0, PoisonAfter({2, 5}));

  EXPECT_EQ(outcome.exit_codes, std::vector<int>(2, kExitDone));
  const std::string key =
      GetParam() == Accumulation::kGradient ? "\"skipped\":true" : "\"masked_gradients\":";
  for (int64_t step = 1; step <= 8; ++step) {
    const bool bad = step == 3 || step == 6;
    EXPECT_EQ(MetricsLine(run_, step).find(key) != std::string::npos, bad) << step;
  }
  for (const int64_t step : {2, 4, 7, 8}) {
    EXPECT_TRUE(IsMarkedFinite(step)) << step;
  }
  EXPECT_FALSE(HasCheckpoint(6)) << "it waited for the next good step";
}

TEST_P(NonFiniteRunTest, ARunBeyondItsBudgetEndsOnAllRanksWithItsExitCode) {
  run_.options.optim.skip_budget = 2;

  const Outcome outcome = Train(run_, 2, 0, PoisonAfter({2, 3, 4}));

  EXPECT_EQ(outcome.exit_codes, std::vector<int>(2, kExitNotFinite));
  EXPECT_NE(MetricsLine(run_, 5), "") << "the last step is on record";
  EXPECT_EQ(MetricsLine(run_, 6), "");
  EXPECT_TRUE(IsMarkedFinite(2));
  EXPECT_FALSE(HasCheckpoint(4)) << "no checkpoint comes from a run that only stumbles on";
}

TEST_P(NonFiniteRunTest, ABudgetOfZeroEndsTheRunAtTheFirst) {
  run_.options.optim.skip_budget = 0;

  const Outcome outcome = Train(run_, 2, 0, PoisonAfter({2}));

  EXPECT_EQ(outcome.exit_codes, std::vector<int>(2, kExitNotFinite));
  EXPECT_EQ(MetricsLine(run_, 4), "");
}

TEST_P(NonFiniteRunTest, StopEndsTheRunAtTheFirstWhateverTheBudget) {
  run_.options.optim.nonfinite = NonFinitePolicy::kStop;

  const Outcome outcome = Train(run_, 2, 0, PoisonAfter({3}));

  EXPECT_EQ(outcome.exit_codes, std::vector<int>(2, kExitNotFinite));
  EXPECT_THAT(MetricsLine(run_, 4), HasSubstr("\"loss_nats\":null"));
  EXPECT_EQ(MetricsLine(run_, 5), "");
  EXPECT_TRUE(IsMarkedFinite(2));
  EXPECT_FALSE(HasCheckpoint(4));
}

TEST_P(NonFiniteRunTest, AResumedRunWithSkipsInItsHistoryEqualsTheStraightRun) {
  TinyRun straight(8);
  straight.options.optim = run_.options.optim;
  const AfterStep poison = PoisonAfter({1, 3, 6});
  const Outcome expected = Train(straight, 2, 0, poison);

  Train(run_, 2, 0, [&](TrainingRun& training, int rank, int64_t done) {
    return poison(training, rank, done) || done == 4;
  });
  const Outcome resumed = Train(run_, 2, 4, poison);

  EXPECT_EQ(expected.exit_codes, std::vector<int>(2, kExitDone));
  EXPECT_EQ(resumed.exit_codes, std::vector<int>(2, kExitDone));
  EXPECT_FALSE(expected.tensors.empty());
  EXPECT_EQ(resumed.tensors, expected.tensors);
}

// A run whose weights are not finite: nothing that a skip could help.
TEST_P(NonFiniteRunTest, ALastStepThatLeavesNonFiniteWeightsIsNotDone) {
  // Finite in steps 1 to 7; the rate of the last step is infinite in fp32.
  run_.options.optim.schedule.kind = ScheduleKind::kPiecewise;
  run_.options.optim.schedule.warmup_steps = 0;
  run_.options.optim.schedule.points = {{.step = 6, .factor = 1}, {.step = 7, .factor = 1e300}};
  run_.options.checkpoint.keep = 1;

  const Outcome outcome = Train(run_, 2, 0, PoisonAfter({}));

  EXPECT_EQ(outcome.exit_codes, std::vector<int>(2, kExitNotFinite));
  EXPECT_NE(MetricsLine(run_, 8), "");
  EXPECT_FALSE(HasCheckpoint(8));
  EXPECT_TRUE(IsMarkedFinite(6)) << "the last one that is finite stays";
}

TEST_P(NonFiniteRunTest, StateThatIsNotFiniteOnOneRankIsNeverSaved) {
  const Outcome outcome = Train(run_, 2, 0, [](TrainingRun& training, int rank, int64_t done) {
    if (rank == 1 && done == 4) {
      training.trainer().optimizer().ForEachState([](const char*, GroupId, const Tensor& shard) {
        shard.data<float>()[shard.elements() - 1] = std::numeric_limits<float>::infinity();
      });
    }
    return false;
  });

  EXPECT_EQ(outcome.exit_codes, std::vector<int>(2, kExitNotFinite));
  EXPECT_TRUE(IsMarkedFinite(2));
  EXPECT_FALSE(HasCheckpoint(4));
}

}  // namespace
}  // namespace panthera
