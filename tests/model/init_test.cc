#include "model/init.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/base/philox.h"
#include "runtime/comm/plan_communicator.h"
#include "runtime/params/name_hash.h"
#include "tests/support/devices.h"
#include "tests/support/random_tensor.h"
#include "tests/support/slices.h"

namespace panthera {
namespace {

constexpr int64_t kSeed = 5;
// Rows that draws of four numbers do not divide, so that shards begin in the middle of one.
constexpr int64_t kRows = 2003;
constexpr int64_t kWidth = 3;
constexpr int64_t kElements = kRows * kWidth;
constexpr char kName[] = "model.embed_tokens.weight";
constexpr double kDeviation = 0.02;

// Normal number `index` of a parameter: the pair of words in its draw that gives it a radius and an
// angle, cosine for the even and sine for the odd numbers.
double ExpectedNormal(int64_t index) {
  const Philox draw = Philox4x32(HashName(kName, kSeed), static_cast<uint64_t>(index / 4), 0);
  const int64_t pair = index % 4 < 2 ? 0 : 2;
  const double radius =
      std::sqrt(-2 * std::log((static_cast<double>(draw.value[pair]) + 1) / 4294967296.0));
  const double angle = 2 * std::numbers::pi * (draw.value[pair + 1] / 4294967296.0);
  return radius * (index % 2 == 0 ? std::cos(angle) : std::sin(angle));
}

void AddParameters(ParameterStore& store) {
  store.Add(store.AddGroup("embedding", GroupKind::kSharded), {.name = kName,
                                                               .shape = {kRows, kWidth},
                                                               .kind = ParamKind::kEmbedding,
                                                               .init_mean = 0,
                                                               .init_deviation = kDeviation});
  store.Add(store.AddGroup("gains", GroupKind::kReplicated), {.name = "gain",
                                                              .shape = {kWidth},
                                                              .kind = ParamKind::kGain,
                                                              .init_mean = 1,
                                                              .init_deviation = 0});
}

// The distance of neighbours among the numbers of so many significant bits.
double UnitInTheLastPlace(double value, int bits) {
  return std::ldexp(1.0, std::ilogb(value) + 1 - bits);
}

// A shard's memory, copied to the host.
class HostShard {
 public:
  HostShard(const WeightShard& shard, Device device)
      : values_(shard.values.shape(), shard.values.dtype()) {
    Stream stream(device);
    Copy(stream, shard.values, values_);
    if (shard.remainder.has_value()) {
      remainder_.emplace(shard.remainder->shape(), shard.remainder->dtype());
      Copy(stream, *shard.remainder, *remainder_);
    }
    if (shard.master.has_value()) {
      master_.emplace(shard.master->shape(), shard.master->dtype());
      Copy(stream, *shard.master, *master_);
    }
    stream.Synchronize();
    view_ = {shard.storage, values_, remainder_, master_};
  }

  const WeightShard& view() const { return view_; }

 private:
  testing::HostTensor values_;
  std::optional<testing::HostTensor> remainder_;
  std::optional<testing::HostTensor> master_;
  WeightShard view_;
};

// A store with initial values as rank `rank` of `ranks` has it.
struct InitializedStore {
  InitializedStore(Device device, WeightStorage storage, int rank, int ranks)
      : communicator(rank, ranks) {
    AddParameters(store);
    store.Allocate(device, ledger, communicator, storage);
    InitializeShards(store, kSeed);
  }

  MemoryLedger ledger;
  PlanCommunicator communicator;
  ParameterStore store;
};

struct InitCase {
  Device device;
  WeightStorage storage;
};

std::vector<InitCase> InitCases() {
  std::vector<InitCase> cases;
  for (const Device device : testing::ComputeDevices()) {
    for (const WeightStorage storage : {WeightStorage::kFp32, WeightStorage::kBf16Plus8,
                                        WeightStorage::kBf16, WeightStorage::kBf16PlusFp32}) {
      cases.push_back({device, storage});
    }
  }
  return cases;
}

std::string InitCaseName(const ::testing::TestParamInfo<InitCase>& info) {
  constexpr const char* kNames[] = {"fp32", "bf16_8", "bf16", "bf16_fp32"};
  return std::string(info.param.device.is_cuda() ? "cuda_" : "cpu_") +
         kNames[static_cast<size_t>(info.param.storage)];
}

class InitializeShardsTest : public ::testing::TestWithParam<InitCase> {
 protected:
  static InitializedStore Store(int rank, int ranks) {
    return InitializedStore(GetParam().device, GetParam().storage, rank, ranks);
  }

  // The significant bits with which values are stored.
  static int StoredBits() {
    switch (GetParam().storage) {
      case WeightStorage::kFp32:
      case WeightStorage::kBf16PlusFp32:
        return 24;
      case WeightStorage::kBf16Plus8:
        return 16;
      case WeightStorage::kBf16:
        return 8;
    }
    return 0;
  }

  // values[i] = element i of the embedding, where it lies in the store's shard.
  static void Read(const ParameterStore& store, std::vector<float>& values) {
    const HostShard shard(store.shard({0}), store.shard({0}).values.device());
    for (const ShardSegment& segment : store.segments({0})) {
      ReadWeights(shard.view(), segment.shard_begin, segment.elements,
                  values.data() + segment.param_begin);
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Storages, InitializeShardsTest, ::testing::ValuesIn(InitCases()),
                         InitCaseName);

TEST_P(InitializeShardsTest, EveryValueIsTheNormalNumberOfItsIndex) {
  const InitializedStore initialized = Store(0, 1);
  std::vector<float> values(kElements);
  Read(initialized.store, values);
  for (int64_t i = 0; i < kElements; ++i) {
    const double expected = kDeviation * ExpectedNormal(i);
    // Root, logarithm, cosine and two products in double precision; then one rounding to fp32, and
    // with fewer bits another one to the storage.
    double bound = 0x1p-48 * std::abs(expected) + UnitInTheLastPlace(expected, 24) / 2;
    if (StoredBits() < 24) {
      bound += UnitInTheLastPlace(expected, StoredBits()) / 2;
    }
    ASSERT_NEAR(static_cast<double>(values[static_cast<size_t>(i)]), expected, bound) << i;
  }
}

TEST_P(InitializeShardsTest, GainsAreExactlyTheirMean) {
  const InitializedStore initialized = Store(1, 3);
  const HostShard gains(initialized.store.shard({1}), GetParam().device);
  const float* values = gains.view().values.data<float>();
  EXPECT_THAT(std::vector<float>(values, values + kWidth), ::testing::Each(1.0F));
}

// Some shards begin in the middle of a draw.
TEST_P(InitializeShardsTest, EveryNumberOfRanksGivesTheSameBits) {
  std::vector<float> whole(kElements);
  Read(Store(0, 1).store, whole);
  for (const int ranks : {2, 3, 7}) {
    std::vector<float> parts(kElements, 1e9F);
    for (int rank = 0; rank < ranks; ++rank) {
      Read(Store(rank, ranks).store, parts);
    }
    EXPECT_EQ(std::memcmp(parts.data(), whole.data(), kElements * sizeof(float)), 0) << ranks;
  }
}

TEST_P(InitializeShardsTest, PaddingStaysZero) {
  const InitializedStore initialized = Store(2, 3);
  const HostShard shard(initialized.store.shard({0}), GetParam().device);
  int64_t end = 0;
  for (const ShardSegment& segment : initialized.store.segments({0})) {
    end = std::max(end, segment.shard_begin + segment.elements);
  }
  const int64_t padding = shard.view().values.elements() - end;
  ASSERT_GT(padding, 0);
  std::vector<float> values(static_cast<size_t>(padding));
  ReadWeights(shard.view(), end, padding, values.data());
  EXPECT_THAT(values, ::testing::Each(0.0F));
}

// Only where a number lies within 2^-24 of a unit of the middle between two floats do the last
// places of double precision matter: not even once in so many numbers is expected.
TEST_P(InitializeShardsTest, DevicesDifferByOneUnitInTheLastPlaceOfFewValues) {
  const InitializedStore here = Store(0, 1);
  const InitializedStore host(Device{}, GetParam().storage, 0, 1);
  std::vector<float> values(kElements);
  std::vector<float> expected(kElements);
  Read(here.store, values);
  Read(host.store, expected);
  int64_t differing = 0;
  for (size_t i = 0; i < kElements; ++i) {
    const auto reference = static_cast<double>(expected[i]);
    differing += values[i] != expected[i] ? 1 : 0;
    ASSERT_NEAR(static_cast<double>(values[i]), reference,
                UnitInTheLastPlace(reference, StoredBits()))
        << i;
  }
  EXPECT_LE(differing, 1);
}

// The matrices of one tensor-parallel rank, as one of `ranks` data-parallel ones has them.
struct InitializedSlices {
  InitializedSlices(const InitCase& on, const testing::SlicePlace& place, int rank, int ranks)
      : communicator(rank, ranks) {
    const GroupId group = store.AddGroup("block", GroupKind::kSharded);
    for (const Shape& shape : {Shape{7, 10}, Shape{70, 90}, Shape{5, 1600}, Shape{40, 128}}) {
      ParamSpec spec;
      spec.name = ToString(shape);
      spec.shape = shape;
      spec.init_deviation = 1;
      store.Add(group, testing::SliceOf(std::move(spec), place));
    }
    store.Allocate(on.device, ledger, communicator, on.storage);
    InitializeShards(store, kSeed);
  }

  // values[tensor][i] = logical element i, where it lies in the store's shard.
  void Read(std::vector<std::vector<float>>& values) const {
    const HostShard shard(store.shard({0}), store.shard({0}).values.device());
    for (const ShardSegment& segment : store.segments({0})) {
      const ParamSpec& spec = store.spec(segment.param);
      std::vector<float>& tensor = values[static_cast<size_t>(segment.param.index)];
      tensor.resize(static_cast<size_t>(spec.logical_shape().elements()), NAN);
      for (int64_t i = 0; i < segment.elements; ++i) {
        ReadWeights(
            shard.view(), segment.shard_begin + i, 1,
            &tensor[static_cast<size_t>(testing::LogicalElement(spec, segment.param_begin + i))]);
      }
    }
  }

  MemoryLedger ledger;
  PlanCommunicator communicator;
  ParameterStore store;
};

// Rows and columns that numbers of parts do not divide, runs that begin in the middle of a draw and
// are shorter than one, shards that begin in the middle of a row.
TEST_P(InitializeShardsTest, EveryCutIntoSlicesAndShardsGivesTheSameBits) {
  std::vector<std::vector<float>> whole(4);
  InitializedSlices(GetParam(), {}, 0, 1).Read(whole);
  for (const testing::Cut cut : {testing::Cut::kRows, testing::Cut::kColumns}) {
    for (const int slices : {2, 3, 4}) {
      for (const int ranks : {1, 2, 3}) {
        std::vector<std::vector<float>> parts(4);
        for (int part = 0; part < slices; ++part) {
          for (int rank = 0; rank < ranks; ++rank) {
            InitializedSlices(GetParam(), {cut, part, slices}, rank, ranks).Read(parts);
          }
        }
        EXPECT_EQ(parts, whole) << slices << " slices by cut " << static_cast<int>(cut) << " on "
                                << ranks;
      }
    }
  }
}

TEST(InitializeMasterCopyTest, LayersReadItRoundedToNearest) {
  for (const Device device : testing::ComputeDevices()) {
    const InitializedStore initialized(device, WeightStorage::kBf16PlusFp32, 0, 1);
    const HostShard shard(initialized.store.shard({0}), device);
    const WeightShard& view = shard.view();
    for (int64_t i = 0; i < kElements; ++i) {
      ASSERT_EQ(view.values.data<BF16>()[i], BF16(view.master->data<float>()[i])) << i;
    }
  }
}

}  // namespace
}  // namespace panthera
