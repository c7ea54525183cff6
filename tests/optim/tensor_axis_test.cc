// Tensor-parallel ranks do not change the mathematics: steps on slices of tensors give the bits of
// the same steps on whole ones where arithmetic is exact, and what the rounding of sums allows
// elsewhere.
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

#include "tests/optim/small_training.h"
#include "tests/support/devices.h"

namespace panthera {
namespace {

using testing::Noise;
using testing::Outcome;
using testing::SameBits;
using testing::SmallTraining;

struct MeshSize {
  int data;
  int tensor;
};
constexpr MeshSize kMeshes[] = {{1, 2}, {2, 2}, {1, 3}, {2, 3}};

std::string ToString(const MeshSize& mesh) {
  return std::to_string(mesh.data) + "x" + std::to_string(mesh.tensor);
}

// Infinities in slices of one tensor-parallel rank, and in a gain, to which each rank adds.
float InfiniteInPlaces(int step, int64_t micro, int64_t part, ParamId id, int64_t i) {
  // embed, q0, k0, up0, up1, gain, bias
  const bool bad = step == 1 && ((id.index == 3 && micro == 0 && part == 3 && i == 2015) ||
                                 (id.index == 0 && micro == 1 && part == 0 && i == 13 * 37 - 1) ||
                                 (id.index == 1 && micro == 1 && part == 2 && i == 1) ||
                                 (id.index == 5 && micro == 0 && part == 1 && i == 3));
  return bad ? std::numeric_limits<float>::infinity() : 0.0F;
}

// With rates that are powers of two RMS, steps and decay are exact, and what the second step
// squares has few bits.
float PlusMinusOne(ParamId id, int64_t i) { return Noise(77, id, i) < 0 ? -1.0F : 1.0F; }

SmallTraining ExactTraining(const OptimOptions& options, const MeshSize& mesh,
                            testing::Poison poison, Device device = {}) {
  SmallTraining training(options, mesh.data, std::move(poison), device);
  training.tensor_ranks = mesh.tensor;
  training.micro_steps = 2;
  training.learning_rate = 0x1p-6;
  training.weights = PlusMinusOne;
  return training;
}

void ExpectEqualReplicas(const Outcome& outcome, const MeshSize& mesh) {
  for (size_t rank = 0; rank < outcome.replicas.size(); ++rank) {
    EXPECT_TRUE(outcome.replicas[rank] == outcome.replicas[rank % static_cast<size_t>(mesh.tensor)])
        << "rank " << rank << " of " << ToString(mesh);
  }
}

struct Case {
  std::string name;
  OptimOptions options;
};

std::string NameOf(const OptimOptions& options) {
  std::string name = EnumName(options.algorithm);
  name += std::string("_") + EnumName(options.accumulate);
  name += options.table_rms == TableRms::kTable ? "_table_rms" : "";
  name += options.table.optimizer == TableOptimizer::kAdamW ? "_table_adamw" : "";
  name += options.publish == PublishMode::kDirection ? "_direction" : "";
  name += options.lazy_rows != LazyRows::kOff ? std::string("_") + EnumName(options.lazy_rows) : "";
  name += options.nonfinite == NonFinitePolicy::kStop ? "_stop" : "";
  return name;
}

// Every allowed combination of what slices could change; what stops at infinities once for each
// rule.
std::vector<Case> Cases() {
  std::vector<Case> cases;
  const auto add = [&](OptimOptions options) {
    options.clip_norm = options.accumulate == Accumulation::kGradient ? 100 : 0;
    options.beta1 = 0.5;
    options.weight_decay = 1;
    options.shrink_ratio = 0.5;
    if (options.Finish().ok()) {
      cases.push_back({NameOf(options), options});
    }
  };
  OptimOptions options;
  for (const Algorithm algorithm : {Algorithm::kTiger, Algorithm::kLion, Algorithm::kAdamW}) {
    options.algorithm = algorithm;
    for (const Accumulation accumulate : {Accumulation::kMomentum, Accumulation::kGradient}) {
      options.accumulate = accumulate;
      for (const TableRms table_rms : {TableRms::kRow, TableRms::kTable}) {
        options.table_rms = table_rms;
        for (const TableOptimizer table : {TableOptimizer::kSame, TableOptimizer::kAdamW}) {
          options.table.optimizer = table;
          for (const PublishMode publish : {PublishMode::kWeights, PublishMode::kDirection}) {
            options.publish = publish;
            for (const LazyRows lazy_rows :
                 {LazyRows::kOff, LazyRows::kChange, LazyRows::kChangeAndState}) {
              options.lazy_rows = lazy_rows;
              options.nonfinite = NonFinitePolicy::kAuto;
              add(options);
            }
          }
          options.publish = PublishMode::kWeights;
          options.lazy_rows = LazyRows::kOff;
          options.nonfinite = NonFinitePolicy::kStop;
          add(options);
        }
      }
    }
  }
  return cases;
}

class TensorAxisTest : public ::testing::TestWithParam<std::tuple<Device, Case>> {};

TEST_P(TensorAxisTest, StepsOnSlicesHaveTheBitsOfStepsOnWholeTensors) {
  const auto& [device, test] = GetParam();
  const OptimOptions& options = test.options;
  const bool stops = options.nonfinite == NonFinitePolicy::kStop;
  const testing::Poison poison = stops ? testing::NoPoison : InfiniteInPlaces;
  // One that is left out leaves weights of few bits to the next.
  const int steps = options.nonfinite == NonFinitePolicy::kSkip ? 3 : 2;

  const Outcome whole = ExactTraining(options, {1, 1}, poison).Run(steps);

  // Emulated GPUs are slow: the largest mesh alone.
  const std::span<const MeshSize> meshes(kMeshes);
  for (const MeshSize& mesh : device.is_cpu() ? meshes : meshes.last(1)) {
    const Outcome slices = ExactTraining(options, mesh, poison, device).Run(steps);
    EXPECT_TRUE(SameBits(slices, whole)) << ToString(mesh);
    EXPECT_EQ(slices.norms.front(), whole.norms.front()) << ToString(mesh);
    ExpectEqualReplicas(slices, mesh);
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, TensorAxisTest,
                         ::testing::Combine(::testing::ValuesIn(testing::ComputeDevices()),
                                            ::testing::ValuesIn(Cases())),
                         [](const auto& test) {
                           return std::string(std::get<0>(test.param).is_cpu() ? "cpu_" : "gpu_") +
                                  std::get<1>(test.param).name;
                         });

// Weights and rates of all bits. Each block's sum of squares has a relative error of at most 68
// units u, and so have S, the sum of all of them, whole or by slices, and twice its root. Hence two
// rates differ by at most 68 u, and 2 u more for rounding the rate itself. In
//   theta - rate * (sign + decay * theta)
// the roundings of the bracket's two operations and of the step are relative to at most rate * (1 +
// decay * |theta|), and that of the result to theta; each happens on both sides.
TEST(TensorAxisRoundingTest, AStepOfTigerDiffersByTheRoundingOfTheSumsOfItsWeights) {
  OptimOptions options =
      testing::TrainingOptions(Algorithm::kTiger, Accumulation::kMomentum, WeightStorage::kFp32);
  options.table_rms = TableRms::kTable;
  const auto train = [&](const MeshSize& mesh) {
    SmallTraining training(options, mesh.data, testing::NoPoison);
    training.tensor_ranks = mesh.tensor;
    return training.Run(1);
  };
  const Outcome whole = train({1, 1});
  for (const MeshSize& mesh : kMeshes) {
    const Outcome slices = train(mesh);
    EXPECT_TRUE(slices.state1 == whole.state1) << ToString(mesh);
    for (size_t p = 0; p < whole.weights.size(); ++p) {
      for (size_t i = 0; i < whole.weights[p].size(); ++i) {
        const double theta = std::abs(whole.weights[p][i]);
        // RMS is at most 1/2, as weights are.
        const double rate = 0.01 / 2;
        const double step = rate * (1 + options.weight_decay * (theta + rate));
        ASSERT_NEAR(slices.weights[p][i], whole.weights[p][i],
                    0x1p-24 * ((68 + 2 + 2 * 3) * step + 2 * (theta + step)))
            << "element " << i << " of parameter " << p << " on " << ToString(mesh);
      }
    }
  }
}

}  // namespace
}  // namespace panthera
