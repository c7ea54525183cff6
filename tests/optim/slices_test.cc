// Updates of slices of logical tensors against those of the whole tensors.
#include "tests/support/slices.h"

#include <cstdint>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

#include "runtime/base/check.h"
#include "tests/optim/small_model.h"
#include "tests/optim/small_training.h"
#include "tests/support/devices.h"
#include "tests/support/rank_harness.h"

namespace panthera {
namespace {

using testing::Cut;
using testing::Elements;
using testing::Noise;
using testing::RankWorld;
using testing::SlicePlace;
using testing::Worker;

constexpr int kSteps = 3;

enum class Matrices { kNone, kSome };

// A table, which is only ever cut by rows, a gain, and matrices: in the first group cuts into 2
// and 4 keep draws of random words whole, in the second none does, and in the third the first of
// three slices has whole draws' columns, but rows that begin anywhere.
void AddSlices(ParameterStore& store, Matrices matrices, const SlicePlace& place) {
  const GroupId table = store.AddGroup("embedding", GroupKind::kSharded);
  store.Add(table, testing::SliceOf({"embed", {13, 37}, ParamKind::kEmbedding},
                                    {Cut::kRows, place.part, place.parts}));
  const GroupId vectors = store.AddGroup("vectors", GroupKind::kReplicated);
  store.Add(vectors, {"gain", {37}, ParamKind::kGain});
  if (matrices == Matrices::kNone) {
    return;
  }
  const GroupId even = store.AddGroup("even", GroupKind::kSharded);
  const GroupId odd = store.AddGroup("odd", GroupKind::kSharded);
  for (const Shape& shape : {Shape{40, 64}, Shape{88, 32}}) {
    store.Add(even, testing::SliceOf({ToString(shape), shape}, place));
  }
  for (const Shape& shape : {Shape{7, 10}, Shape{60, 50}, Shape{9, 130}}) {
    store.Add(odd, testing::SliceOf({ToString(shape), shape}, place));
  }
  const GroupId uneven = store.AddGroup("uneven", GroupKind::kSharded);
  store.Add(uneven, testing::SliceOf({"uneven", {50, 25}, ParamKind::kMatrix}, place));
}

using Case = std::tuple<Algorithm, WeightStorage, PublishMode, Device>;

class SlicesTest : public ::testing::TestWithParam<Case> {
 protected:
  static OptimOptions StepOptions() {
    const auto [algorithm, storage, publish, device] = GetParam();
    OptimOptions options = testing::TrainingOptions(algorithm, Accumulation::kGradient, storage);
    options.publish = publish;
    CHECK_OK(options.Finish());
    return options;
  }
  // Tiger's step of a matrix is relative to what all of its slices have.
  static Matrices StepMatrices() {
    return std::get<0>(GetParam()) == Algorithm::kTiger ? Matrices::kNone : Matrices::kSome;
  }

  // What `steps` steps make of `start`, by logical element, on one tensor-parallel rank and `ranks`
  // data-parallel ones; elements of other slices are left alone.
  static void Train(const SlicePlace& place, Matrices matrices, int ranks, int steps,
                    testing::ElementFunction start, Elements& whole) {
    std::mutex mutex;
    std::vector<std::string> replicas(static_cast<size_t>(ranks));
    testing::RunRanks(ranks, [&](RankWorld& world) {
      Worker worker(std::get<Device>(GetParam()), world.ledger(), world.communicator(),
                    StepOptions(),
                    [&](ParameterStore& store) { AddSlices(store, matrices, place); });
      worker.SetWeights(start);
      worker.store.Publish(worker.comm, worker.ctx.compute(), worker.ctx.exchange());
      for (int step = 0; step < steps; ++step) {
        StepInput input;
        input.step = step;
        input.learning_rate = 0.01;
        input.rounding_key = 77;
        worker.StepWithGradients(input, [&](ParamId id, int64_t i) {
          return Noise(static_cast<uint64_t>(step) + 10, id, i);
        });
        worker.optimizer->Publish(worker.ctx);
      }
      const std::lock_guard<std::mutex> lock(mutex);
      replicas[static_cast<size_t>(world.rank())] = worker.ReplicaBytes();
      if (whole.empty()) {
        whole = testing::EmptyElements(worker.store);
      }
      worker.CopyWeights(whole);
    });
    for (const std::string& replica : replicas) {
      EXPECT_TRUE(replica == replicas[0]) << "ranks differ";
    }
  }
};

TEST_P(SlicesTest, UpdatesHaveTheBitsOfTheWholeTensors) {
  const auto start = [](ParamId id, int64_t i) { return Noise(1, id, i); };
  Elements whole;
  Train({}, StepMatrices(), 1, kSteps, start, whole);
  for (const Cut cut : {Cut::kRows, Cut::kColumns}) {
    for (const int parts : {2, 3, 4}) {
      for (const int ranks : {1, 3}) {
        Elements joined;
        for (int part = 0; part < parts; ++part) {
          Train({cut, part, parts}, StepMatrices(), ranks, kSteps, start, joined);
        }
        EXPECT_TRUE(joined == whole) << ToString(SlicePlace{cut, 0, parts}) << " on " << ranks;
      }
    }
  }
}

// Where all other slices are zero a slice knows the sum of squares of the whole, which is exact
// here; its mean is over the elements of the whole.
TEST_P(SlicesTest, RatesAreThoseOfTheWholeTensor) {
  for (const Cut cut : {Cut::kRows, Cut::kColumns}) {
    const SlicePlace place{cut, 1, 3};
    ParameterStore slices;
    AddSlices(slices, Matrices::kSome, place);
    Elements is_here;
    for (int p = 0; p < slices.num_params(); ++p) {
      const ParamSpec& spec = slices.spec({p});
      is_here.emplace_back(static_cast<size_t>(spec.logical_shape().elements()));
      for (int64_t i = 0; i < spec.shape.elements(); ++i) {
        is_here.back()[static_cast<size_t>(testing::LogicalElement(spec, i))] = 1;
      }
    }
    const auto start = [&](ParamId id, int64_t i) {
      const float sign = Noise(1, id, i) < 0 ? -0.5F : 0.5F;
      return sign * is_here[static_cast<size_t>(id.index)][static_cast<size_t>(i)];
    };
    Elements whole;
    Train({}, Matrices::kSome, 1, 1, start, whole);
    Elements slice;
    Train(place, Matrices::kSome, 2, 1, start, slice);
    for (size_t p = 0; p < whole.size(); ++p) {
      for (size_t i = 0; i < whole[p].size(); ++i) {
        if (is_here[p][i] != 0) {
          ASSERT_EQ(slice[p][i], whole[p][i]) << p << " " << i;
        }
      }
    }
  }
}

std::string CaseName(const ::testing::TestParamInfo<Case>& info) {
  const auto [algorithm, storage, publish, device] = info.param;
  return absl::StrCat(EnumName(algorithm), storage == WeightStorage::kBf16 ? "_bf16_" : "_bf16p8_",
                      EnumName(publish), device.is_cuda() ? "_cuda" : "_cpu");
}

INSTANTIATE_TEST_SUITE_P(
    Weights, SlicesTest,
    ::testing::Combine(::testing::Values(Algorithm::kTiger, Algorithm::kLion, Algorithm::kAdamW),
                       ::testing::Values(WeightStorage::kBf16, WeightStorage::kBf16Plus8),
                       ::testing::Values(PublishMode::kWeights),
                       ::testing::ValuesIn(testing::ComputeDevices())),
    CaseName);
INSTANTIATE_TEST_SUITE_P(Directions, SlicesTest,
                         ::testing::Combine(::testing::Values(Algorithm::kTiger, Algorithm::kLion),
                                            ::testing::Values(WeightStorage::kBf16,
                                                              WeightStorage::kBf16Plus8),
                                            ::testing::Values(PublishMode::kDirection),
                                            ::testing::ValuesIn(testing::ComputeDevices())),
                         CaseName);

}  // namespace
}  // namespace panthera
