// Every mesh of data- and tensor-parallel ranks trains the model that one rank trains, and any mesh
// goes on from what another has saved.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <gmock/gmock.h>

#include "launcher/training_checkpoint.h"
#include "tests/equivalence/tiny_run.h"

namespace panthera {
namespace {

using testing::RankWorld;
using testing::RunRanks;
using testing::Tensors;
using testing::TinyRun;

struct MeshSize {
  int data;
  int tensor;

  int ranks() const { return data * tensor; }
};

std::string Name(const MeshSize& mesh) {
  return std::to_string(mesh.data) + "x" + std::to_string(mesh.tensor);
}

// What all ranks together hold after some steps, and what the steps reported.
struct Course {
  std::vector<double> losses;
  std::vector<double> norms;
  Tensors tensors;
};

// 23 tokens, 26 hidden features and 6 heads over 2 keys, of which neither 4 nor 2 ranks get equal
// parts of all.
RunOptions WithUnevenSizes(RunOptions options) {
  options.model.width = 20;
  options.model.heads = 6;
  options.model.kv_heads = 2;
  options.model.head_width = 4;
  options.model.ffn_width = 26;
  options.model.head_chunk_rows = 6;
  return options;
}

class Training {
 public:
  Training(const RunOptions& options, const TinyRun& run, const MeshSize& mesh)
      : options_(options), run_(run), mesh_(mesh) {
    options_.parallel.tensor = mesh.tensor;
    CHECK_OK(options_.Finish(mesh.ranks()));
  }

  // Steps [0, end), from fresh parameters or from the checkpoint of `from` if that is above 0; a
  // checkpoint is saved after step `save`, if that is above 0.
  Course Run(int64_t from, int64_t end, int64_t save = 0) {
    Course course;
    RunRanks(mesh_.ranks(), [&](RankWorld& ranks) {
      World world = testing::WorldOf(ranks, {}, mesh_.tensor);
      const auto trainer = testing::NewTrainer(options_, world, ranks.ledger());
      PosixFileSystem files;
      if (from > 0) {
        const absl::StatusOr<FoundCheckpoint> found =
            FindNewest(files, *world.host, options_.train.run_dir, from + 1);
        ASSERT_TRUE(found.ok() && found->checkpoint.has_value()) << found.status();
        ASSERT_EQ(LoadTraining(files, world, *trainer, *found->checkpoint), absl::OkStatus());
      }
      const DataLoader data = run_.OpenData();
      for (int64_t step = from; step < end; ++step) {
        const absl::StatusOr<StepResult> result = trainer->TrainStep(step, &data);
        ASSERT_TRUE(result.ok()) << result.status();
        Report(ranks.rank(), *result, course);
        if (step + 1 == save) {
          ASSERT_EQ(SaveTraining(files, world, *trainer, options_, {}, save), absl::OkStatus());
        }
      }
      const std::lock_guard<std::mutex> lock(mutex_);
      testing::CopyShards(*trainer, course.tensors);
    });
    return course;
  }

 private:
  // Every rank must report the same.
  void Report(int rank, const StepResult& result, Course& course) {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<double>& losses = losses_[rank];
    losses.push_back(result.loss_nats);
    if (rank == 0) {
      course.losses.push_back(result.loss_nats);
      course.norms.push_back(result.gradient_norm);
    }
    for (const auto& [other, its] : losses_) {
      const size_t both = std::min(its.size(), losses.size());
      EXPECT_TRUE(
          std::equal(its.begin(), its.begin() + static_cast<std::ptrdiff_t>(both), losses.begin()))
          << "ranks " << rank << " and " << other;
    }
  }

  RunOptions options_;
  const TinyRun& run_;
  MeshSize mesh_;
  std::mutex mutex_;
  std::map<int, std::vector<double>> losses_;
};

double NormOf(const std::vector<float>& values) {
  double sum = 0;
  for (const double value : values) {
    sum += value * value;
  }
  return std::sqrt(sum);
}

double DistanceOf(const std::vector<float>& a, const std::vector<float>& b) {
  std::vector<float> difference(a.size());
  for (size_t i = 0; i < a.size(); ++i) {
    difference[i] = a[i] - b[i];
  }
  return NormOf(difference);
}

// Some 30 operations between a parameter and the loss, each a sum of at most 26 terms over all
// ranks, then one over the samples (see tests/model/tensor_parallel_test.cc); both sides have such
// errors.
constexpr double kBound = 2 * (30 * 26 + 24) * 0x1p-24;

struct Variant {
  const char* name;
  Tie tie;
  Algorithm algorithm;
  Accumulation accumulate;
  WeightStorage weights = WeightStorage::kFp32;
  Recompute recompute = Recompute::kNone;
  PublishMode publish = PublishMode::kWeights;
  LazyRows lazy_rows = LazyRows::kAuto;
  TableOptimizer table = TableOptimizer::kSame;
  double clip_norm = 0;
};

RunOptions OptionsOf(const Variant& variant, const TinyRun& run) {
  RunOptions options = WithUnevenSizes(run.options);
  options.model.tie = variant.tie;
  options.model.recompute = variant.recompute;
  options.optim.algorithm = variant.algorithm;
  options.optim.accumulate = variant.accumulate;
  options.optim.weights = variant.weights;
  options.optim.publish = variant.publish;
  options.optim.lazy_rows = variant.lazy_rows;
  options.optim.table.optimizer = variant.table;
  options.optim.clip_norm = variant.clip_norm;
  return options;
}

const std::vector<Variant>& Variants() {
  static const std::vector<Variant> kVariants = {
      {"TigerInTheMomentum", Tie::kNone, Algorithm::kTiger, Accumulation::kMomentum},
      {"TiedTigerInTheGradient", Tie::kTied, Algorithm::kTiger, Accumulation::kGradient,
       WeightStorage::kFp32, Recompute::kBlock},
      {"SwappedHalvesAsDirections", Tie::kSwapHalves, Algorithm::kTiger, Accumulation::kMomentum,
       WeightStorage::kFp32, Recompute::kNone, PublishMode::kDirection},
      {"ClippedLion", Tie::kNone, Algorithm::kLion, Accumulation::kGradient, WeightStorage::kFp32,
       Recompute::kNone, PublishMode::kWeights, LazyRows::kChangeAndState, TableOptimizer::kSame,
       0.5},
      {"AdamW", Tie::kTied, Algorithm::kAdamW, Accumulation::kGradient},
      {"TigerWithAnAdamWTable", Tie::kNone, Algorithm::kTiger, Accumulation::kGradient,
       WeightStorage::kFp32, Recompute::kNone, PublishMode::kWeights, LazyRows::kOff,
       TableOptimizer::kAdamW},
  };
  return kVariants;
}

constexpr MeshSize kMeshes[] = {{1, 2}, {2, 1}, {2, 2}, {1, 4}, {4, 1}, {2, 4}, {1, 6}};

class TensorMeshesTest : public ::testing::TestWithParam<Variant> {};

INSTANTIATE_TEST_SUITE_P(Variants, TensorMeshesTest, ::testing::ValuesIn(Variants()),
                         [](const auto& test) { return test.param.name; });

// Every state after one step is a sum of gradients, or of their squares; each has a relative error
// in the norm, and squares have twice that.
void ExpectFirstStepOf(const Course& one, const Course& many) {
  EXPECT_NEAR(many.losses[0], one.losses[0], kBound * one.losses[0]);
  ASSERT_EQ(many.tensors.size(), one.tensors.size());
  int64_t equal = 0;
  int64_t all = 0;
  for (const auto& [name, expected] : one.tensors) {
    const std::vector<float>& actual = many.tensors.at(name);
    ASSERT_EQ(actual.size(), expected.size()) << name;
    if (name.find('|') != std::string::npos) {
      EXPECT_LE(DistanceOf(actual, expected), 2 * kBound * NormOf(expected)) << name;
      continue;
    }
    // A step goes along a sign, which may flip only where the momentum is near zero; its length
    // follows from sums over the tensor that ranks take in another order.
    for (size_t i = 0; i < expected.size(); ++i) {
      equal += std::abs(actual[i] - expected[i]) <= kBound * std::abs(expected[i]) ? 1 : 0;
      ++all;
    }
  }
  EXPECT_GE(static_cast<double>(equal), 0.99 * static_cast<double>(all));
}

TEST_P(TensorMeshesTest, FirstStepIsThatOfOneRank) {
  TinyRun run(4);
  const RunOptions options = OptionsOf(GetParam(), run);
  const Course one = Training(options, run, {1, 1}).Run(0, 1);
  for (const MeshSize& mesh : kMeshes) {
    SCOPED_TRACE(Name(mesh));
    const Course many = Training(options, run, mesh).Run(0, 1);
    ExpectFirstStepOf(one, many);
    // Folded gradients have the norms of their micro-steps, of which a mesh has its own number.
    if (GetParam().accumulate == Accumulation::kGradient || mesh.data == 1) {
      EXPECT_NEAR(many.norms[0], one.norms[0], kBound * one.norms[0]);
    }
  }
}

// The stated band: ten steps at a rate of 1 % end within 1 % of each other's loss.
TEST_P(TensorMeshesTest, LossesStayWithinABandOfThoseOfOneRank) {
  TinyRun run(10);
  const RunOptions options = OptionsOf(GetParam(), run);
  const Course one = Training(options, run, {1, 1}).Run(0, 10);
  EXPECT_LT(one.losses.back(), 0.98 * one.losses.front()) << "nothing was learnt";
  for (const MeshSize& mesh : kMeshes) {
    SCOPED_TRACE(Name(mesh));
    const Course many = Training(options, run, mesh).Run(0, 10);
    for (size_t step = 0; step < 10; ++step) {
      EXPECT_NEAR(many.losses[step], one.losses[step], 0.01 * one.losses[step]) << step;
    }
  }
}

class TensorMeshResumeTest : public ::testing::TestWithParam<WeightStorage> {};

INSTANTIATE_TEST_SUITE_P(Storages, TensorMeshResumeTest,
                         ::testing::Values(WeightStorage::kFp32, WeightStorage::kBf16Plus8,
                                           WeightStorage::kBf16, WeightStorage::kBf16PlusFp32));

TEST_P(TensorMeshResumeTest, AnyMeshGoesOnFromWhatTwoByTwoHasSaved) {
  for (const Tie tie : {Tie::kNone, Tie::kSwapHalves}) {
    TinyRun run(4);
    RunOptions options = WithUnevenSizes(run.options);
    options.optim.weights = GetParam();
    options.model.tie = tie;
    Training two_by_two(options, run, {2, 2});
    const Tensors saved = two_by_two.Run(0, 2, /*save=*/2).tensors;
    const Course straight = Training(options, run, {2, 2}).Run(0, 4);
    for (const MeshSize& mesh : {MeshSize{2, 2}, MeshSize{1, 1}, MeshSize{4, 1}, MeshSize{1, 4},
                                 MeshSize{3, 1}, MeshSize{2, 3}}) {
      SCOPED_TRACE(Name(mesh));
      EXPECT_EQ(Training(options, run, mesh).Run(2, 2).tensors, saved) << "as loaded";
      const Course resumed = Training(options, run, mesh).Run(2, 4);
      if (mesh.data == 2 && mesh.tensor == 2) {
        EXPECT_EQ(resumed.losses,
                  std::vector<double>(straight.losses.begin() + 2, straight.losses.end()));
        EXPECT_EQ(resumed.tensors, straight.tensors);
      } else {
        // In bf16 each of some 60 roundings of a row is of 2^-9, of which a mean over all rows
        // keeps little.
        const double band = GetParam() == WeightStorage::kFp32 ? kBound : 60 * 0x1p-9 / 16;
        EXPECT_NEAR(resumed.losses[0], straight.losses[2], band * straight.losses[2]);
        EXPECT_NEAR(resumed.losses[1], straight.losses[3], 0.01 * straight.losses[3]);
      }
    }
  }
}

}  // namespace
}  // namespace panthera
