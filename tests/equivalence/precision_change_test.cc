// A run goes on with another storage of weights and optimizer state than it was saved with, on
// another mesh: it holds what the files hold, as far as its storage can.
#include "runtime/checkpoint/precision_change.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <gmock/gmock.h>

#include "launcher/exit_codes.h"
#include "launcher/training_checkpoint.h"
#include "launcher/training_run.h"
#include "runtime/math/host_mirror.h"
#include "tests/equivalence/tiny_run.h"
#include "tests/support/devices.h"

namespace panthera {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::RankWorld;
using testing::RunRanks;
using testing::Tensors;
using testing::TinyRun;

constexpr WeightStorage kStorages[] = {WeightStorage::kFp32, WeightStorage::kBf16Plus8,
                                       WeightStorage::kBf16, WeightStorage::kBf16PlusFp32};
constexpr MomentumStorage kMomenta[] = {MomentumStorage::kFp32, MomentumStorage::kBf16};

struct MeshSize {
  int data = 1;
  int tensor = 1;

  int ranks() const { return data * tensor; }
};

// How a run keeps what it knows.
struct Precision {
  WeightStorage weights = WeightStorage::kFp32;
  MomentumStorage momentum = MomentumStorage::kFp32;
};

std::string Name(const Precision& precision) {
  return std::string(EnumName(precision.weights)) + ", " + EnumName(precision.momentum);
}

// 23 tokens and 26 hidden features, of which 2 tensor-parallel ranks cannot have equal parts.
RunOptions OptionsOf(const TinyRun& run, const Precision& precision, const MeshSize& mesh) {
  RunOptions options = run.options;
  options.model.kv_heads = 2;
  options.model.ffn_width = 26;
  options.optim.weights = precision.weights;
  options.optim.momentum = precision.momentum;
  options.parallel.tensor = mesh.tensor;
  return options;
}

// What a run does from the checkpoint of step `from`, or from fresh parameters if that is 0.
struct Leg {
  int64_t from = 0;
  int64_t steps = 0;
  int64_t save_as = 0;  // no save if 0
  Device device = {};
};

struct Course {
  // What all ranks hold before the first step.
  Tensors before;
  // The largest difference between that and what layers read on any rank, as a share of it.
  double worst_reading = 0;
  std::vector<double> losses;
};

// The same for this rank's layers.
double WorstReading(ModelInstance& instance, const Tensors& held) {
  Context& ctx = instance.context();
  const ParameterStore& params = instance.params();
  double worst = 0;
  for (int p = 0; p < params.num_params(); ++p) {
    const ParamSpec& spec = params.spec(ParamId{p});
    const ElementMap logical = spec.logical_elements();
    params.AwaitPublished(params.group_of(ParamId{p}), ctx.compute());
    const Tensor read = params.value(ParamId{p});
    DispatchFloat(read.dtype(), [&]<typename T>() {
      const std::vector<T> values = ReadToHost<T>(ctx, read);
      for (size_t i = 0; i < values.size(); ++i) {
        const double expected =
            held.at(spec.name)[static_cast<size_t>(logical(static_cast<int64_t>(i)))];
        const double difference =
            std::abs(static_cast<double>(static_cast<float>(values[i])) - expected);
        worst = std::max(worst, difference == 0 ? 0 : difference / std::abs(expected));
      }
    });
  }
  return worst;
}

absl::Status Load(const RunOptions& options, World& world, Trainer& trainer, int64_t step) {
  PosixFileSystem files;
  const absl::StatusOr<FoundCheckpoint> found =
      FindNewest(files, *world.host, options.train.run_dir, step + 1);
  CHECK_OK(found.status());
  CHECK(found->checkpoint.has_value());
  return LoadTraining(files, world, trainer, *found->checkpoint);
}

Course Take(const Leg& leg, RunOptions options, const TinyRun& run, const MeshSize& mesh) {
  CHECK_OK(options.Finish(mesh.ranks()));
  Course course;
  std::mutex mutex;
  RunRanks(mesh.ranks(), [&](RankWorld& ranks) {
    World world = testing::WorldOf(ranks, leg.device, mesh.tensor);
    const auto trainer = testing::NewTrainer(options, world, ranks.ledger());
    if (leg.from > 0) {
      const absl::Status loaded = Load(options, world, *trainer, leg.from);
      ASSERT_TRUE(loaded.ok()) << loaded;
    }
    {
      const std::lock_guard<std::mutex> lock(mutex);
      testing::CopyShards(*trainer, course.before);
    }
    ranks.Meet();
    const double worst = WorstReading(trainer->instance(), course.before);
    {
      const std::lock_guard<std::mutex> lock(mutex);
      course.worst_reading = std::max(course.worst_reading, worst);
    }
    const DataLoader data = run.OpenData();
    for (int64_t step = leg.from; step < leg.from + leg.steps; ++step) {
      const absl::StatusOr<StepResult> result = trainer->TrainStep(step, &data);
      ASSERT_TRUE(result.ok()) << result.status();
      if (ranks.rank() == 0) {
        course.losses.push_back(result->loss_nats);
      }
    }
    if (leg.save_as > 0) {
      PosixFileSystem files;
      ASSERT_EQ(SaveTraining(files, world, *trainer, options, {}, leg.save_as), absl::OkStatus());
    }
  });
  return course;
}

std::string PathOf(const TinyRun& run, int64_t step, const std::string& set) {
  return CheckpointDirectory(run.options.train.run_dir, step) + "/" + set + ".safetensors";
}

// The bytes of the file of a set, "" if the checkpoint has no such set.
std::string FileOf(const TinyRun& run, int64_t step, const std::string& set) {
  PosixFileSystem files;
  return ReadFile(files, PathOf(run, step, set)).value_or("");
}

// A tensor of a file, by name.
struct FileTensor {
  TensorDescription description;
  std::string bytes;

  bool is_gain() const { return description.shape.rank() == 1; }
  template <typename Bits>
  Bits At(size_t i) const {
    Bits bits;
    std::memcpy(&bits, &bytes[i * sizeof(Bits)], sizeof(Bits));
    return bits;
  }
};

std::map<std::string, FileTensor> TensorsOf(const TinyRun& run, int64_t step,
                                            const std::string& set) {
  std::map<std::string, FileTensor> tensors;
  const std::string bytes = FileOf(run, step, set);
  if (bytes.empty()) {
    return tensors;
  }
  const std::string path = PathOf(run, step, set);
  PosixFileSystem files;
  const auto file = files.Open(path, OpenMode::kRead);
  CHECK_OK(file.status());
  const absl::StatusOr<SafetensorsHeader> header = ReadSafetensorsHeader(**file, path);
  CHECK_OK(header.status());
  for (const SafetensorsEntry& entry : header->entries) {
    tensors[entry.tensor.name] = {
        entry.tensor,
        bytes.substr(static_cast<size_t>(entry.begin), static_cast<size_t>(entry.tensor.bytes()))};
  }
  return tensors;
}

float Fp32(uint32_t pattern) { return std::bit_cast<float>(pattern); }

// The number with `digits` binary digits nearest to `value`, of two the one with an even last
// digit.
float Nearest(float value, int digits) {
  int exponent = 0;
  (void)std::frexp(value, &exponent);
  return static_cast<float>(
      std::ldexp(std::nearbyint(std::ldexp(static_cast<double>(value), digits - exponent)),
                 exponent - digits));
}

// How many binary digits a storage keeps.
int DigitsOf(WeightStorage storage) {
  return storage == WeightStorage::kBf16 ? 8 : storage == WeightStorage::kBf16Plus8 ? 16 : 24;
}
int DigitsOf(MomentumStorage storage) { return storage == MomentumStorage::kBf16 ? 8 : 24; }

// What the files say that a tensor of a set holds: value i as far as low bits and copies of it go.
std::vector<float> ValuesOf(const FileTensor& values, const FileTensor* remainder,
                            const FileTensor* master) {
  std::vector<float> stored;
  const auto count = static_cast<size_t>(values.description.shape.elements());
  for (size_t i = 0; i < count; ++i) {
    if (master != nullptr) {
      stored.push_back(Fp32(master->At<uint32_t>(i)));
    } else if (values.description.dtype == DType::kF32) {
      stored.push_back(Fp32(values.At<uint32_t>(i)));
    } else {
      const int64_t low = remainder == nullptr ? 0 : remainder->At<int8_t>(i);
      const int64_t high = values.At<uint16_t>(i);
      stored.push_back(Fp32(static_cast<uint32_t>(high * 65536 + low * 256)));
    }
  }
  return stored;
}

const FileTensor* Find(const std::map<std::string, FileTensor>& tensors, const std::string& name) {
  const auto found = tensors.find(name);
  return found == tensors.end() ? nullptr : &found->second;
}

// What a run that keeps `precision` holds after loading what the files hold.
Tensors Expected(const TinyRun& run, int64_t step, const Precision& precision,
                 const std::vector<std::string>& states) {
  Tensors expected;
  const auto remainders = TensorsOf(run, step, "remainder");
  const auto masters = TensorsOf(run, step, "master");
  for (const auto& [name, tensor] : TensorsOf(run, step, "model")) {
    std::vector<float>& values = expected[name];
    values = ValuesOf(tensor, Find(remainders, name), Find(masters, name));
    for (float& value : values) {
      value = tensor.is_gain() ? value : Nearest(value, DigitsOf(precision.weights));
    }
  }
  for (const std::string& state : states) {
    for (const auto& [name, tensor] : TensorsOf(run, step, state)) {
      std::vector<float>& values = expected[name + "|" + state];
      values = ValuesOf(tensor, nullptr, nullptr);
      // AdamW's second moment is fp32 always.
      const int digits = state == "moment2" ? 24 : DigitsOf(precision.momentum);
      for (float& value : values) {
        value = Nearest(value, digits);
      }
    }
  }
  return expected;
}

// Of each of the some 60 roundings to bf16 in a row of activations, 2^-9 of it at most, a mean over
// all rows keeps little, as in tensor_meshes_test.cc. Both sides have them.
constexpr double kBand = 2 * 60 * 0x1p-9 / 16;

// A mesh that saves and one that loads.
using Meshes = std::pair<MeshSize, MeshSize>;

class PrecisionChangeTest
    : public ::testing::TestWithParam<std::tuple<WeightStorage, MomentumStorage, Meshes>> {};

INSTANTIATE_TEST_SUITE_P(
    Saved, PrecisionChangeTest,
    ::testing::Combine(::testing::ValuesIn(kStorages), ::testing::ValuesIn(kMomenta),
                       ::testing::Values(Meshes{{2, 1}, {2, 2}}, Meshes{{2, 2}, {3, 1}})));

TEST_P(PrecisionChangeTest, AnyStorageOnAnotherMeshHoldsWhatTheFilesHoldRoundedToNearest) {
  const Precision saved = {std::get<0>(GetParam()), std::get<1>(GetParam())};
  const auto& [saving, loading] = std::get<2>(GetParam());
  TinyRun run(4);
  Take({.steps = 2, .save_as = 2}, OptionsOf(run, saved, saving), run, saving);
  const Course straight = Take({.from = 2, .steps = 1}, OptionsOf(run, saved, saving), run, saving);
  for (const WeightStorage weights : kStorages) {
    for (const MomentumStorage momentum : kMomenta) {
      const Precision wanted = {weights, momentum};
      SCOPED_TRACE(Name(saved) + " -> " + Name(wanted));
      const Course resumed =
          Take({.from = 2, .steps = 1}, OptionsOf(run, wanted, loading), run, loading);
      EXPECT_EQ(resumed.before, Expected(run, 2, wanted, {"momentum"}));
      // Half a unit in the last place of bf16.
      EXPECT_LE(resumed.worst_reading, weights == WeightStorage::kFp32 ? 0 : 0x1p-8);
      ASSERT_EQ(resumed.losses.size(), 1U);
      EXPECT_NEAR(resumed.losses[0], straight.losses[0], kBand * straight.losses[0]);
    }
  }
}

// Saves as step 2 what the first run holds, and changes to `other` and back.
void ExpectSameFilesAfterThereAndBack(const Precision& first, const Precision& other) {
  SCOPED_TRACE(Name(first) + " -> " + Name(other) + " and back");
  const MeshSize two{2, 1};
  const MeshSize four{2, 2};
  TinyRun run(4);
  run.options.checkpoint.keep = 3;
  Take({.steps = 2, .save_as = 2}, OptionsOf(run, first, two), run, two);
  Take({.from = 2, .save_as = 3}, OptionsOf(run, other, four), run, four);
  Take({.from = 3, .save_as = 4}, OptionsOf(run, first, two), run, two);
  for (const char* set : {"model", "remainder", "master", "momentum"}) {
    EXPECT_TRUE(FileOf(run, 4, set) == FileOf(run, 2, set)) << set;
  }
  EXPECT_FALSE(FileOf(run, 2, "model").empty());
  EXPECT_FALSE(FileOf(run, 2, "momentum").empty());
}

TEST(PrecisionChangeFilesTest, ThereAndBackIsBitForBitWhereTheOtherStorageKeepsAsMuch) {
  for (const WeightStorage first : kStorages) {
    for (const WeightStorage other : kStorages) {
      if (first != other && DigitsOf(other) >= DigitsOf(first)) {
        ExpectSameFilesAfterThereAndBack({first, MomentumStorage::kBf16},
                                         {other, MomentumStorage::kFp32});
      }
    }
  }
}

// The table has kinds of its own.
TEST(PrecisionChangeFilesTest, AllKindsOfStateAreConverted) {
  TinyRun run(4);
  run.options.optim.table.optimizer = TableOptimizer::kAdamW;
  const Precision saved = {WeightStorage::kBf16Plus8, MomentumStorage::kFp32};
  Take({.steps = 2, .save_as = 2}, OptionsOf(run, saved, {2, 1}), run, {2, 1});
  const Precision wanted = {WeightStorage::kBf16, MomentumStorage::kBf16};
  const Course resumed = Take({.from = 2}, OptionsOf(run, wanted, {2, 2}), run, {2, 2});
  const Tensors expected = Expected(run, 2, wanted, {"momentum", "moment1", "moment2"});
  EXPECT_TRUE(expected.contains("model.embed_tokens.weight|moment2"));
  EXPECT_EQ(resumed.before, expected);
}

class PrecisionChangeOnDeviceTest : public ::testing::TestWithParam<Device> {};

INSTANTIATE_TEST_SUITE_P(Devices, PrecisionChangeOnDeviceTest,
                         ::testing::ValuesIn(testing::ComputeDevices()), testing::DeviceName);

TEST_P(PrecisionChangeOnDeviceTest, HoldsWhatTheFilesHold) {
  TinyRun run(4);
  const Precision saved = {WeightStorage::kFp32, MomentumStorage::kFp32};
  Take({.steps = 2, .save_as = 2}, OptionsOf(run, saved, {2, 1}), run, {2, 1});
  for (const WeightStorage weights :
       {WeightStorage::kBf16Plus8, WeightStorage::kBf16, WeightStorage::kBf16PlusFp32}) {
    const Precision wanted = {weights, MomentumStorage::kBf16};
    const Course resumed =
        Take({.from = 2, .device = GetParam()}, OptionsOf(run, wanted, {}), run, {});
    EXPECT_EQ(resumed.before, Expected(run, 2, wanted, {"momentum"})) << Name(wanted);
  }
}

// What each rank is told when it loads step 2 with `options`.
std::vector<absl::Status> StatusesOfLoading(const RunOptions& options, int ranks) {
  std::vector<absl::Status> statuses(static_cast<size_t>(ranks));
  RunRanks(ranks, [&](RankWorld& rank_world) {
    World world = testing::WorldOf(rank_world);
    const auto trainer = testing::NewTrainer(options, world, rank_world.ledger());
    statuses[static_cast<size_t>(rank_world.rank())] = Load(options, world, *trainer, 2);
  });
  return statuses;
}

TEST(PrecisionChangeErrorTest, TensorsThatAreLeftOverAreNamedByEveryRank) {
  TinyRun run(4);
  Take({.steps = 2, .save_as = 2}, OptionsOf(run, {}, {}), run, {});
  RunOptions options = OptionsOf(run, {WeightStorage::kBf16, MomentumStorage::kBf16}, {});
  options.model.layers = 1;
  for (const absl::Status& status : StatusesOfLoading(options, 2)) {
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("model.layers.1."), HasSubstr("does not want")));
  }
}

// The ranks lie as they did when they saved, so that only one of them reads what is damaged.
TEST(PrecisionChangeErrorTest, DamageOnOneRankIsAnErrorOfEveryRank) {
  for (const std::string set : {"model", "momentum"}) {
    TinyRun run(4);
    Take({.steps = 2, .save_as = 2}, OptionsOf(run, {}, {3, 1}), run, {3, 1});
    const std::string path = PathOf(run, 2, set);
    PosixFileSystem files;
    std::string bytes = *ReadFile(files, path);
    const size_t at = bytes.find(TensorsOf(run, 2, set).at("lm_head.weight").bytes);
    ASSERT_NE(at, std::string::npos);
    bytes[at] = static_cast<char>(bytes[at] ^ 1);
    ASSERT_EQ(WriteFile(files, path, bytes), absl::OkStatus());
    const Precision wanted = {WeightStorage::kBf16, MomentumStorage::kBf16};
    for (const absl::Status& status : StatusesOfLoading(OptionsOf(run, wanted, {}), 3)) {
      EXPECT_TRUE(IsDamage(status)) << status;
      EXPECT_THAT(std::string(status.message()), HasSubstr(path));
    }
  }
}

// A run as the program runs it, from where its directory stands to `steps`; returns its log.
std::string RunTo(int64_t steps, RunOptions options, const MeshSize& mesh) {
  options.train.steps = steps;
  CHECK_OK(options.Finish(mesh.ranks()));
  ::testing::internal::CaptureStderr();
  RunRanks(mesh.ranks(), [&](RankWorld& ranks) {
    World world = testing::WorldOf(ranks, {}, mesh.tensor);
    const auto training = TrainingRun::Open(options, StartMode::kResume, world);
    ASSERT_TRUE(training.ok()) << training.status();
    const absl::StatusOr<int> exit_code = (*training)->Run();
    ASSERT_TRUE(exit_code.ok()) << exit_code.status();
    EXPECT_EQ(*exit_code, kExitDone);
  });
  return ::testing::internal::GetCapturedStderr();
}

int Count(const std::string& text, const std::string& part) {
  int count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
    ++count;
  }
  return count;
}

TEST(PrecisionChangeRunTest, AResumedRunSaysWhatItConvertedOnceAndSavesTheNewStorage) {
  TinyRun run(6);
  const Precision first = {WeightStorage::kBf16Plus8, MomentumStorage::kFp32};
  RunTo(2, OptionsOf(run, first, {2, 1}), {2, 1});
  EXPECT_FALSE(TensorsOf(run, 2, "remainder").empty());

  const Precision second = {WeightStorage::kBf16, MomentumStorage::kBf16};
  const std::string rounded = RunTo(4, OptionsOf(run, second, {2, 2}), {2, 2});
  EXPECT_EQ(Count(rounded, "weights: bf16+8 -> bf16, rounded to nearest"), 1) << rounded;
  EXPECT_EQ(Count(rounded, "momentum: fp32 -> bf16, rounded to nearest"), 1) << rounded;
  EXPECT_TRUE(TensorsOf(run, 4, "remainder").empty());
  for (const auto& [name, tensor] : TensorsOf(run, 4, "momentum")) {
    EXPECT_EQ(tensor.description.dtype, DType::kBF16) << name;
  }

  const Precision third = {WeightStorage::kBf16PlusFp32, MomentumStorage::kFp32};
  const std::string exact = RunTo(6, OptionsOf(run, third, {3, 1}), {3, 1});
  EXPECT_EQ(Count(exact, "weights: bf16 -> bf16+fp32, bit for bit"), 1) << exact;
  EXPECT_EQ(Count(exact, "momentum: bf16 -> fp32, bit for bit"), 1) << exact;
  EXPECT_FALSE(TensorsOf(run, 6, "master").empty());
}

}  // namespace
}  // namespace panthera
