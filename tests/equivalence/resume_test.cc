// A resumed run is the run that was never interrupted.
#include <omp.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <gmock/gmock.h>

#include "launcher/exit_codes.h"
#include "launcher/run_directory.h"
#include "launcher/training_checkpoint.h"
#include "launcher/training_run.h"
#include "tests/equivalence/sample_sums.h"
#include <sys/wait.h>

namespace panthera {
namespace {

using testing::RankWorld;
using testing::RunRanks;
using testing::SampleSums;
using testing::Tensors;
using testing::TinyRun;

// Runs from where the directory stands to `steps`, and returns what the ranks hold then.
Tensors TrainTo(const TinyRun& run, int64_t steps, int ranks, StartMode start, int threads = 1) {
  Tensors tensors;
  std::mutex mutex;
  RunRanks(ranks, [&](RankWorld& rank_world) {
    omp_set_num_threads(threads);
    World world = testing::WorldOf(rank_world);
    RunOptions options = run.options;
    options.train.steps = steps;
    ASSERT_EQ(options.Finish(ranks), absl::OkStatus());
    absl::StatusOr<std::unique_ptr<TrainingRun>> training =
        TrainingRun::Open(options, start, world);
    ASSERT_TRUE(training.ok()) << training.status();
    const absl::StatusOr<int> exit_code = (*training)->Run();
    ASSERT_TRUE(exit_code.ok()) << exit_code.status();
    EXPECT_EQ(*exit_code, kExitDone);
    const std::lock_guard<std::mutex> lock(mutex);
    testing::CopyShards((*training)->trainer(), tensors);
  });
  return tensors;
}

// The course of the rate must not depend on where a run was cut.
void KeepRateConstant(RunOptions& options) {
  options.optim.schedule.kind = ScheduleKind::kPiecewise;
  options.optim.schedule.warmup_steps = 0;
  options.optim.schedule.points = {{.step = 4, .factor = 1}};
}

struct Variant {
  const char* name;
  Algorithm algorithm;
  Accumulation accumulate;
  WeightStorage weights;
  MomentumStorage momentum;
  Tie tie;
  int ranks;
  TableOptimizer table = TableOptimizer::kSame;
};

class ResumeTest : public ::testing::TestWithParam<Variant> {
 protected:
  static void Configure(RunOptions& options) {
    const Variant& variant = GetParam();
    options.optim.algorithm = variant.algorithm;
    options.optim.accumulate = variant.accumulate;
    options.optim.weights = variant.weights;
    options.optim.momentum = variant.momentum;
    options.optim.table.optimizer = variant.table;
    options.model.tie = variant.tie;
    KeepRateConstant(options);
  }
};

INSTANTIATE_TEST_SUITE_P(
    Variants, ResumeTest,
    ::testing::Values(Variant{"TigerFp32", Algorithm::kTiger, Accumulation::kMomentum,
                              WeightStorage::kFp32, MomentumStorage::kFp32, Tie::kNone, 1},
                      Variant{"TigerFp32OnThreeRanks", Algorithm::kTiger, Accumulation::kMomentum,
                              WeightStorage::kFp32, MomentumStorage::kFp32, Tie::kTied, 3},
                      Variant{"TigerBf16Plus8OnTwoRanks", Algorithm::kTiger,
                              Accumulation::kGradient, WeightStorage::kBf16Plus8,
                              MomentumStorage::kBf16, Tie::kSwapHalves, 2},
                      Variant{"TigerBf16", Algorithm::kTiger, Accumulation::kMomentum,
                              WeightStorage::kBf16, MomentumStorage::kBf16, Tie::kNone, 2},
                      Variant{"LionBf16PlusFp32", Algorithm::kLion, Accumulation::kGradient,
                              WeightStorage::kBf16PlusFp32, MomentumStorage::kFp32, Tie::kNone, 2},
                      Variant{"AdamW", Algorithm::kAdamW, Accumulation::kGradient,
                              WeightStorage::kFp32, MomentumStorage::kFp32, Tie::kTied, 2},
                      Variant{"TigerAndAdamWOnThreeRanks", Algorithm::kTiger,
                              Accumulation::kMomentum, WeightStorage::kBf16Plus8,
                              MomentumStorage::kBf16, Tie::kTied, 3, TableOptimizer::kAdamW},
                      Variant{"LionAndAdamW", Algorithm::kLion, Accumulation::kGradient,
                              WeightStorage::kFp32, MomentumStorage::kFp32, Tie::kNone, 2,
                              TableOptimizer::kAdamW}),
    [](const auto& test) { return test.param.name; });

TEST_P(ResumeTest, ResumedRunEqualsStraightRun) {
  TinyRun straight(6);
  TinyRun resumed(6);
  Configure(straight.options);
  Configure(resumed.options);

  const Tensors expected = TrainTo(straight, 6, GetParam().ranks, StartMode::kResume);
  TrainTo(resumed, 3, GetParam().ranks, StartMode::kResume);
  const Tensors actual = TrainTo(resumed, 6, GetParam().ranks, StartMode::kResume);

  EXPECT_FALSE(expected.empty());
  EXPECT_EQ(actual, expected);
}

TEST_P(ResumeTest, AnotherNumberOfRanksHoldsTheSameTensors) {
  TinyRun run(3);
  Configure(run.options);
  const Tensors saved = TrainTo(run, 3, GetParam().ranks, StartMode::kResume);

  // Nothing is left to train, so what is loaded is what is held.
  for (const int ranks : {1, 2, 4}) {
    EXPECT_EQ(TrainTo(run, 3, ranks, StartMode::kResume), saved) << ranks << " ranks";
  }
}

// Checkpoints do not tell how ranks learned of each other's updates, and the next run may do it the
// other way.
TEST(ResumePublishTest, ARunThatChangesHowItPublishesEqualsAStraightRun) {
  for (const WeightStorage weights :
       {WeightStorage::kFp32, WeightStorage::kBf16Plus8, WeightStorage::kBf16}) {
    const auto train = [&](std::vector<PublishMode> publish) {
      TinyRun run(2 * static_cast<int64_t>(publish.size()));
      KeepRateConstant(run.options);
      run.options.optim.weights = weights;
      run.options.optim.momentum = MomentumStorage::kBf16;
      Tensors tensors;
      for (size_t leg = 0; leg < publish.size(); ++leg) {
        run.options.optim.publish = publish[leg];
        tensors = TrainTo(run, 2 * static_cast<int64_t>(leg + 1), 3, StartMode::kResume);
      }
      return tensors;
    };
    constexpr PublishMode kWeights = PublishMode::kWeights;
    constexpr PublishMode kDirection = PublishMode::kDirection;
    const Tensors expected = train({kWeights, kWeights, kWeights});
    EXPECT_EQ(train({kWeights, kDirection, kWeights}), expected) << EnumName(weights);
    EXPECT_EQ(train({kDirection, kWeights, kDirection}), expected) << EnumName(weights);
  }
}

// Every algorithm with every storage that it takes.
std::vector<OptimOptions> AllStorages() {
  std::vector<OptimOptions> all;
  for (const Algorithm algorithm : {Algorithm::kTiger, Algorithm::kLion, Algorithm::kAdamW}) {
    for (const Accumulation accumulate : {Accumulation::kMomentum, Accumulation::kGradient}) {
      for (int weights = 0; weights < 4; ++weights) {
        for (const MomentumStorage momentum : {MomentumStorage::kFp32, MomentumStorage::kBf16}) {
          OptimOptions options;
          options.algorithm = algorithm;
          options.accumulate = accumulate;
          options.weights = static_cast<WeightStorage>(weights);
          options.momentum = momentum;
          OptimOptions finished = options;
          if (finished.Finish().ok()) {
            all.push_back(options);
          }
        }
      }
    }
  }
  return all;
}

TEST(ResumeStoragesListTest, AllCombinationsThatAreNotRefusedAreTested) {
  // Tiger has two accumulations, Lion and AdamW one; each takes 4 x 2 storages.
  EXPECT_EQ(AllStorages().size(), (2 + 1 + 1) * 8U);
}

class ResumeStoragesTest : public ::testing::TestWithParam<OptimOptions> {};

INSTANTIATE_TEST_SUITE_P(
    All, ResumeStoragesTest, ::testing::ValuesIn(AllStorages()), [](const auto& test) {
      const OptimOptions& optim = test.param;
      std::string name =
          std::string(EnumNames<Algorithm>::kNames[static_cast<int>(optim.algorithm)]) + "_" +
          EnumNames<Accumulation>::kNames[static_cast<int>(optim.accumulate)] + "_" +
          EnumNames<WeightStorage>::kNames[static_cast<int>(optim.weights)] + "_" +
          EnumNames<MomentumStorage>::kNames[static_cast<int>(optim.momentum)];
      std::replace(name.begin(), name.end(), '+', '_');
      return name;
    });

TEST_P(ResumeStoragesTest, EveryAlgorithmWithEveryStorageGoesOnWithTheSameBits) {
  constexpr int64_t kHalf = 2;
  TinyRun run(2 * kHalf);
  KeepRateConstant(run.options);
  const ScheduleOptions schedule = run.options.optim.schedule;
  run.options.optim = GetParam();
  run.options.optim.schedule = schedule;
  run.options.optim.learning_rate = 1e-2;
  RunRanks(2, [&](RankWorld& rank_world) {
    World world = testing::WorldOf(rank_world);
    RunOptions options = run.options;
    ASSERT_EQ(options.Finish(2), absl::OkStatus());
    const DataLoader data = run.OpenData();
    PosixFileSystem files;
    const auto step_to = [&](Trainer& trainer, int64_t begin, int64_t end) {
      for (int64_t step = begin; step < end; ++step) {
        ASSERT_TRUE(trainer.TrainStep(step, &data).ok());
      }
    };
    Tensors straight;
    {
      const auto trainer = testing::NewTrainer(run.options, world, rank_world.ledger());
      step_to(*trainer, 0, kHalf);
      ASSERT_EQ(SaveTraining(files, world, *trainer, options, {}, kHalf), absl::OkStatus());
      step_to(*trainer, kHalf, 2 * kHalf);
      testing::CopyShards(*trainer, straight);
    }
    const auto trainer = testing::NewTrainer(run.options, world, rank_world.ledger());
    const absl::StatusOr<FoundCheckpoint> found =
        FindNewest(files, *world.host, options.train.run_dir, 1000);
    ASSERT_TRUE(found.ok() && found->checkpoint.has_value()) << found.status();
    ASSERT_EQ(LoadTraining(files, world, *trainer, *found->checkpoint), absl::OkStatus());
    step_to(*trainer, kHalf, 2 * kHalf);
    Tensors resumed;
    testing::CopyShards(*trainer, resumed);
    EXPECT_EQ(resumed, straight);
  });
}

// With two sources whose epochs end inside the 4th step and at the end of the 5th.
TEST(ResumeEpochTest, AnyStepOfAnEpochAndItsEndAreGoodToResumeFrom) {
  constexpr int64_t kSteps = 7;
  TinyRun straight(kSteps);
  straight.UseShortTexts();
  KeepRateConstant(straight.options);
  const Tensors expected = TrainTo(straight, kSteps, 2, StartMode::kResume);
  {
    const DataLoader data = straight.OpenData();
    EXPECT_EQ(data.At(3 * 12).epoch + data.At(3 * 12 + 1).epoch, 0);
    EXPECT_GT(data.At(4 * 12 - 1).epoch + data.At(4 * 12 - 2).epoch, 0);
    EXPECT_GT(data.At(kSteps * 12 - 1).epoch + data.At(kSteps * 12 - 2).epoch, 0);
  }
  for (int64_t cut = 1; cut < kSteps; ++cut) {
    TinyRun resumed(kSteps);
    resumed.UseShortTexts();
    KeepRateConstant(resumed.options);
    TrainTo(resumed, cut, 2, StartMode::kResume);
    EXPECT_EQ(TrainTo(resumed, kSteps, 2, StartMode::kResume), expected) << "cut at " << cut;
  }
  TinyRun piecemeal(kSteps);
  piecemeal.UseShortTexts();
  KeepRateConstant(piecemeal.options);
  for (int64_t steps = 1; steps < kSteps; ++steps) {
    TrainTo(piecemeal, steps, 2, StartMode::kResume);
  }
  EXPECT_EQ(TrainTo(piecemeal, kSteps, 2, StartMode::kResume), expected) << "cut everywhere";
}

// Trains in a process of its own, which is killed when it has taken `steps` steps.
void TrainAndKill(const TinyRun& run, int ranks, int64_t steps) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    RunRanks(ranks, [&](RankWorld& rank_world) {
      World world = testing::WorldOf(rank_world);
      RunOptions options = run.options;
      CHECK_OK(options.Finish(ranks));
      auto training = TrainingRun::Open(options, StartMode::kResume, world);
      CHECK_OK(training.status());
      int64_t taken = 0;
      CHECK_OK((*training)
                   ->Run([&] {
                     if (++taken == steps) {
                       kill(getpid(), SIGKILL);
                     }
                     return false;
                   })
                   .status());
    });
    _exit(1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status)) << status;
  ASSERT_EQ(WTERMSIG(status), SIGKILL);
}

// 2N steps are N steps, a save, a few steps that nobody will ever see, a kill, a load and N steps.
TEST(ResumeAfterAKillTest, EqualsTheStraightRun) {
  TinyRun straight(6);
  TinyRun killed(6);
  for (TinyRun* run : {&straight, &killed}) {
    KeepRateConstant(run->options);
    run->options.checkpoint.every = 3;
    // So that the save is complete when the process is killed.
    run->options.checkpoint.staging = CheckpointStaging::kNone;
  }
  const Tensors expected = TrainTo(straight, 6, 2, StartMode::kResume);

  TrainAndKill(killed, 2, 5);
  ASSERT_TRUE(std::filesystem::exists(CheckpointDirectory(killed.options.train.run_dir, 3) +
                                      "/manifest.json"));
  ASSERT_FALSE(std::filesystem::exists(CheckpointDirectory(killed.options.train.run_dir, 6) +
                                       "/manifest.json"));
  EXPECT_EQ(TrainTo(killed, 6, 2, StartMode::kResume), expected);
}

// What is held is the same (above); the next step is that of any other mesh up to rounding: its
// loss, its momentum, and its weights but for a sign where the momentum is near zero.
TEST(ResumeOnAnotherMeshTest, TheNextStepIsWithinTheBoundsOfOneStep) {
  constexpr int64_t kStep = 3;
  constexpr double kBeta = 0.965;
  TinyRun run(kStep);
  KeepRateConstant(run.options);
  const Tensors before = TrainTo(run, kStep, 3, StartMode::kResume);
  SampleSums sums;
  RunRanks(1, [&](RankWorld& rank_world) {
    World world = testing::WorldOf(rank_world);
    RunOptions options = run.options;
    ASSERT_EQ(options.Finish(1), absl::OkStatus());
    const auto training = TrainingRun::Open(options, StartMode::kResume, world);
    ASSERT_TRUE(training.ok()) << training.status();
    sums = testing::SumOverSamples((*training)->trainer(), run.OpenData(), kStep * 12, 12);
  });
  std::map<int, Tensors> after;
  for (const int ranks : {3, 1, 2, 4}) {
    TinyRun copy(kStep + 1);
    const std::string run_dir = copy.options.train.run_dir;
    copy.options = run.options;
    copy.options.train.run_dir = run_dir;
    std::filesystem::copy(run.options.train.run_dir, copy.options.train.run_dir,
                          std::filesystem::copy_options::recursive);
    after[ranks] = TrainTo(copy, kStep + 1, ranks, StartMode::kResume);
    int64_t equal = 0;
    for (const auto& [name, gradient] : sums.gradient) {
      const std::string momentum = name + "|momentum";
      const std::vector<double> bounds =
          testing::StepBounds(copy.options, ranks, sums.magnitude.at(name));
      for (size_t i = 0; i < gradient.size(); ++i) {
        const double old = before.at(momentum)[i];
        const double expected = kBeta * old + (1 - kBeta) * gradient[i] / 12;
        // The folds' noise, and one more rounding of the old momentum's part for each of them.
        const double bound =
            (1 - kBeta) * bounds[i] / 12 + (12 + 2) * UnitRoundoff(DType::kF32) * std::abs(old);
        ASSERT_NEAR(after[ranks].at(momentum)[i], expected, bound) << name << " " << i;
        if (std::abs(expected) > bound) {
          ASSERT_EQ(after[ranks].at(name)[i], after[3].at(name)[i]) << name << " " << i;
          ++equal;
        }
      }
    }
    EXPECT_GT(equal, 3000) << ranks << " ranks";
  }
}

// What two processes might do: the same run in two directories, with several threads a rank.
TEST(RepeatedRunTest, TheSameRunTwiceHasTheSameBits) {
  const int threads = omp_get_max_threads();
  for (const int count : {1, 3}) {
    omp_set_num_threads(count);
    Tensors tensors[2];
    std::map<std::string, std::string> files[2];
    for (const int attempt : {0, 1}) {
      TinyRun run(5);
      run.options.optim.weights = WeightStorage::kBf16Plus8;
      run.options.eval.every = 2;
      tensors[attempt] = TrainTo(run, 5, count == 1 ? 3 : 1, StartMode::kResume, count);
      PosixFileSystem disk;
      for (const auto& entry :
           std::filesystem::directory_iterator(CheckpointDirectory(run.options.train.run_dir, 5))) {
        if (entry.path().extension() == ".safetensors") {
          files[attempt][entry.path().filename()] = *ReadFile(disk, entry.path());
        }
      }
    }
    EXPECT_EQ(tensors[0], tensors[1]) << count << " threads";
    EXPECT_GE(files[0].size(), 2U) << "weights and state";
    EXPECT_TRUE(files[0] == files[1]) << count << " threads";
  }
  omp_set_num_threads(threads);
}

TEST(FreshStartTest, BeginsAtStepZeroAndKeepsTheEarlierRun) {
  TinyRun run(2);
  const Tensors first = TrainTo(run, 2, 1, StartMode::kResume);

  const Tensors fresh = TrainTo(run, 2, 1, StartMode::kFresh);

  EXPECT_EQ(fresh, first) << "the same run from the same start";
  PosixFileSystem files;
  EXPECT_TRUE(
      files.List(run.options.train.run_dir + "/set_aside_1/checkpoints/step_00000002").ok());
}

// Two ranks are refused to go on with `run`, and are told of `change` and of a way out.
void ExpectRefusal(const TinyRun& run, const std::string& change) {
  RunRanks(2, [&](RankWorld& rank_world) {
    World world = testing::WorldOf(rank_world);
    RunOptions options = run.options;
    ASSERT_EQ(options.Finish(2), absl::OkStatus());
    const auto training = TrainingRun::Open(options, StartMode::kResume, world);
    ASSERT_FALSE(training.ok());
    EXPECT_THAT(std::string(training.status().message()),
                ::testing::AllOf(::testing::HasSubstr(change), ::testing::HasSubstr("--fresh")));
  });
}

TEST(ResumeRefusalTest, AnotherModelIsRefusedByName) {
  TinyRun run(2);
  TrainTo(run, 2, 1, StartMode::kResume);
  run.options.model.layers = 3;
  ExpectRefusal(run, "model.layers: 2 -> 3");
}

// Lion's momentum is not Tiger's: other betas, and it is updated after its sign was taken.
TEST(ResumeRefusalTest, AnotherAlgorithmIsRefusedByName) {
  TinyRun run(2);
  run.options.optim.accumulate = Accumulation::kGradient;
  TrainTo(run, 2, 1, StartMode::kResume);
  run.options.optim.algorithm = Algorithm::kLion;
  ExpectRefusal(run, "optim.algorithm: \"tiger\" -> \"lion\"");
}

TEST(ResumeRefusalTest, AnotherOptimizerOfTheTableIsRefusedByName) {
  TinyRun run(2);
  TrainTo(run, 2, 1, StartMode::kResume);
  run.options.optim.table.optimizer = TableOptimizer::kAdamW;
  ExpectRefusal(run, "optim.table_optimizer: \"same\" -> \"adamw\"");
}

}  // namespace
}  // namespace panthera
