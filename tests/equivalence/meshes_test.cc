// All meshes, a long test: every data-parallel size with every way to accumulate, to store weights
// and momentum, and to recompute. Of each combination: the plan is the truth, the first step is
// that of the whole batch, recomputed steps and resumed steps have the same bits, and every other
// mesh holds the same tensors.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <gmock/gmock.h>

#include "launcher/training_checkpoint.h"
#include "tests/equivalence/sample_sums.h"

namespace panthera {
namespace {

using testing::RankWorld;
using testing::RunRanks;
using testing::SampleSums;
using testing::Tensors;
using testing::TinyRun;

constexpr int kSizes[] = {1, 2, 3, 4, 6, 8, 12};
// Divided by every size.
constexpr int64_t kSamples = 24;
constexpr int64_t kHalf = 2;
constexpr double kBeta = 0.965;

// What all ranks together hold after some steps, and what the steps reported.
struct Course {
  std::vector<double> losses;
  std::vector<double> norms;
  Tensors first;  // after the first step
  Tensors last;
};

void ExpectPlanned(const StepPlan& plan, Trainer& trainer, const MemoryLedger& ledger) {
  EXPECT_EQ(ledger.total_bytes(), plan.total_bytes());
  EXPECT_LE(trainer.instance().context().arena().peak_bytes(), plan.arena_bytes);
}

class Ranks {
 public:
  Ranks(const TinyRun& run, int size) : run_(run), size_(size) {}

  // Steps [0, 2 * kHalf), saving after kHalf.
  Course TrainAndSave() {
    Course course;
    RunRanks(size_, [&](RankWorld& rank_world) {
      World world = testing::WorldOf(rank_world);
      RunOptions options = Finished();
      absl::StatusOr<World> plan_world = PlanWorld(options.parallel, size_);
      ASSERT_TRUE(plan_world.ok());
      const StepPlan plan = Trainer::Plan(options, *plan_world, {});
      const auto trainer = testing::NewTrainer(run_.options, world, rank_world.ledger());
      for (int64_t step = 0; step < 2 * kHalf; ++step) {
        const int64_t sent = world.data_parallel->bytes_sent();
        Step(*trainer, step, rank_world.rank(), course);
        EXPECT_EQ(world.data_parallel->bytes_sent() - sent, plan.sent.data);
        if (step == 0) {
          Copy(*trainer, course.first);
        }
        if (step + 1 == kHalf) {
          PosixFileSystem files;
          ASSERT_EQ(SaveTraining(files, world, *trainer, options, {}, kHalf), absl::OkStatus());
        }
      }
      ExpectPlanned(plan, *trainer, rank_world.ledger());
      Copy(*trainer, course.last);
    });
    return course;
  }

  // Loads what was saved, perhaps by another number of ranks, and takes steps [kHalf, end).
  Course Resume(int64_t end) {
    Course course;
    RunRanks(size_, [&](RankWorld& rank_world) {
      World world = testing::WorldOf(rank_world);
      const auto trainer = testing::NewTrainer(run_.options, world, rank_world.ledger());
      PosixFileSystem files;
      const absl::StatusOr<FoundCheckpoint> found =
          FindNewest(files, *world.host, run_.options.train.run_dir, 1000);
      ASSERT_TRUE(found.ok() && found->checkpoint.has_value()) << found.status();
      ASSERT_EQ(LoadTraining(files, world, *trainer, *found->checkpoint), absl::OkStatus());
      Copy(*trainer, course.first);
      for (int64_t step = kHalf; step < end; ++step) {
        Step(*trainer, step, rank_world.rank(), course);
      }
      Copy(*trainer, course.last);
    });
    return course;
  }

 private:
  RunOptions Finished() const {
    RunOptions options = run_.options;
    CHECK_OK(options.Finish(size_));
    return options;
  }
  void Copy(Trainer& trainer, Tensors& tensors) {
    const std::lock_guard<std::mutex> lock(mutex_);
    testing::CopyShards(trainer, tensors);
  }
  void Step(Trainer& trainer, int64_t step, int rank, Course& course) {
    const DataLoader data = run_.OpenData();
    const absl::StatusOr<StepResult> result = trainer.TrainStep(step, &data);
    ASSERT_TRUE(result.ok()) << result.status();
    if (rank == 0) {
      course.losses.push_back(result->loss_nats);
      course.norms.push_back(result->gradient_norm);
    }
  }

  const TinyRun& run_;
  int size_;
  std::mutex mutex_;
};

void ExpectFirstStepOf(const SampleSums& sums, const TinyRun& run, int size, const Course& course,
                       const Tensors& weights_of_one_rank) {
  const double loss = sums.loss / kSamples;
  EXPECT_NEAR(course.losses.at(0), loss, 1e-12 * loss);
  for (const auto& [name, gradient] : sums.gradient) {
    const std::vector<double> bounds =
        testing::StepBounds(run.options, size, sums.magnitude.at(name));
    for (size_t i = 0; i < gradient.size(); ++i) {
      const double bound = bounds[i];
      const double scale = (1 - kBeta) / kSamples;
      ASSERT_NEAR(course.first.at(name + "|momentum")[i], scale * gradient[i], scale * bound)
          << name << " " << i;
      if (std::abs(gradient[i]) > bound) {
        ASSERT_EQ(course.first.at(name)[i], weights_of_one_rank.at(name)[i]) << name << " " << i;
      }
    }
  }
}

std::string Describe(int size, const OptimOptions& optim, Recompute recompute) {
  return std::to_string(size) + " ranks, accumulate " +
         EnumNames<Accumulation>::kNames[static_cast<int>(optim.accumulate)] + ", weights " +
         EnumNames<WeightStorage>::kNames[static_cast<int>(optim.weights)] + ", momentum " +
         EnumNames<MomentumStorage>::kNames[static_cast<int>(optim.momentum)] + ", recompute " +
         EnumNames<Recompute>::kNames[static_cast<int>(recompute)];
}

struct Tally {
  int64_t meshes = 0;
  int64_t steps = 0;
};

// One combination of storages over all sizes, with and without recomputation.
void RunSizes(Accumulation accumulate, WeightStorage weights, MomentumStorage momentum,
              Tally& tally) {
  std::map<Recompute, std::map<int, Course>> courses;
  for (const Recompute recompute : {Recompute::kNone, Recompute::kBlock}) {
    TinyRun fresh(2 * kHalf);
    RunOptions base = fresh.options;
    base.train.global_batch = kSamples;
    base.optim.accumulate = accumulate;
    base.optim.weights = weights;
    base.optim.momentum = momentum;
    base.model.recompute = recompute;
    fresh.options = base;
    const SampleSums sums = testing::SumOverFirstStep(fresh);
    for (const int size : kSizes) {
      SCOPED_TRACE(Describe(size, base.optim, recompute));
      TinyRun run(2 * kHalf);
      const std::string run_dir = run.options.train.run_dir;
      run.options = base;
      run.options.train.run_dir = run_dir;
      Course& course = courses[recompute][size] = Ranks(run, size).TrainAndSave();
      ExpectFirstStepOf(sums, run, size, course, courses[recompute][1].first);
      EXPECT_EQ(course.losses, courses[Recompute::kNone][size].losses);
      EXPECT_EQ(course.norms, courses[Recompute::kNone][size].norms);
      EXPECT_EQ(course.last, courses[Recompute::kNone][size].last);

      const Course resumed = Ranks(run, size).Resume(2 * kHalf);
      EXPECT_EQ(resumed.last, course.last);
      // As many ranks as the next size has, and one rank after the last.
      const int other =
          size == 12 ? 1 : *(std::find(std::begin(kSizes), std::end(kSizes), size) + 1);
      const Course loaded = Ranks(run, other).Resume(kHalf + 1);
      EXPECT_EQ(loaded.first, resumed.first) << "on " << other << " ranks";
      EXPECT_NEAR(loaded.losses.at(0), resumed.losses.at(0), 1e-12 * resumed.losses.at(0));
      ++tally.meshes;
      tally.steps += 2 * kHalf + kHalf + 1;
    }
  }
}

TEST(AllMeshesTest, EverySizeAndStorageKeepsThePromises) {
  const auto begin = std::chrono::steady_clock::now();
  Tally tally;
  for (const Accumulation accumulate : {Accumulation::kMomentum, Accumulation::kGradient}) {
    for (const WeightStorage weights : {WeightStorage::kFp32, WeightStorage::kBf16Plus8,
                                        WeightStorage::kBf16, WeightStorage::kBf16PlusFp32}) {
      for (const MomentumStorage momentum : {MomentumStorage::kFp32, MomentumStorage::kBf16}) {
        RunSizes(accumulate, weights, momentum, tally);
      }
    }
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  std::printf(
      "summary: %lld meshes of thread ranks (1, 2, 3, 4, 6, 8 and 12 ranks x 2 accumulations x 4 "
      "weight storages x 2 momentum storages x 2 recomputations), %lld steps, %.0f s: %s\n",
      static_cast<long long>(tally.meshes), static_cast<long long>(tally.steps), seconds.count(),
      HasFailure() ? "FAILED" : "all promises hold");
}

}  // namespace
}  // namespace panthera
