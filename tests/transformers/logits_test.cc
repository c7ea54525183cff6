// A checkpoint directory opens in Hugging Face transformers and gives the logits that the trained
// model gave.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "launcher/conversion.h"
#include "launcher/exit_codes.h"
#include "launcher/training_run.h"
#include "model/key_value_cache.h"
#include "tests/equivalence/tiny_run.h"
#include "tests/transformers/python_script.h"

namespace panthera {
namespace {

using Json = nlohmann::json;
using testing::RankWorld;
using testing::RunPythonScript;
using testing::RunRanks;
using testing::ScriptResult;
using testing::ScriptVerdict;
using testing::TempDir;
using testing::TinyRun;

constexpr int64_t kSteps = 2;

// How a sequence is given to the model to get the logits after each of its tokens.
enum class Feed { kEveryPrefix, kTokenByToken };

std::vector<std::vector<float>> LogitsOf(ModelInstance& instance, std::vector<int32_t> tokens,
                                         Feed feed) {
  Context& ctx = instance.context();
  const ModelOptions& options = instance.model().options();
  const auto length = static_cast<int64_t>(tokens.size());
  KeyValueCache cache =
      instance.model().MakeCache(ctx.device(), ctx.ledger(), instance.dtype(), length);
  Buffer memory(ctx.device(), ctx.ledger(), MemoryCategory::kData, "logits",
                options.vocab_size * SizeOf(instance.dtype()));
  const Tensor logits = memory.View({1, options.vocab_size}, instance.dtype());
  const Tensor input(tokens.data(), {length}, DType::kI32, ctx.device());
  std::vector<std::vector<float>> rows;
  for (int64_t t = 0; t < length; ++t) {
    if (feed == Feed::kEveryPrefix) {
      cache.Clear();
    }
    const int64_t begin = cache.length();
    instance.model().Decode(ctx, instance.params(), input.Slice(begin, t + 1), cache, logits);
    DispatchFloat(logits.dtype(), [&]<typename T>() {
      rows.emplace_back(logits.data<T>(), logits.data<T>() + options.vocab_size);
    });
  }
  return rows;
}

// The file that compare_logits.py reads.
Json ExpectedLogits(ModelInstance& instance) {
  Json expected;
  const auto add = [&](const std::vector<int32_t>& tokens, Feed feed) {
    expected["sequences"].push_back(tokens);
    expected["logits"].push_back(LogitsOf(instance, tokens, feed));
  };
  const std::vector<int32_t> full = {3, 10, 8, 2, 7, 22, 21, 18, 9, 5, 16, 3, 0, 1, 4, 13};
  add(full, Feed::kEveryPrefix);
  add(full, Feed::kTokenByToken);
  add({22, 22, 22, 0, 22, 6, 6}, Feed::kEveryPrefix);
  add({11}, Feed::kEveryPrefix);
  return expected;
}

struct Trained {
  std::string checkpoint;  // directory
  Json expected;
};

// Trains on two ranks, each of which holds a half of every tensor.
Trained Train(const TinyRun& run) {
  Trained trained;
  trained.checkpoint = CheckpointDirectory(run.options.train.run_dir, kSteps);
  RunRanks(2, [&](RankWorld& rank_world) {
    World world = testing::WorldOf(rank_world);
    RunOptions options = run.options;
    ASSERT_EQ(options.Finish(rank_world.size()), absl::OkStatus());
    auto training = TrainingRun::Open(options, StartMode::kResume, world);
    ASSERT_TRUE(training.ok()) << training.status();
    const absl::StatusOr<int> exit_code = (*training)->Run();
    ASSERT_TRUE(exit_code.ok()) << exit_code.status();
    ASSERT_EQ(*exit_code, kExitDone);
    if (rank_world.rank() == 0) {
      trained.expected = ExpectedLogits((*training)->trainer().instance());
    }
  });
  return trained;
}

double LargestSize(const Json& logits) {
  double largest = 0;
  for (const Json& sequence : logits) {
    for (const std::vector<double> row : sequence) {
      for (const double logit : row) {
        largest = std::max(largest, std::abs(logit));
      }
    }
  }
  return largest;
}

// Both sides round what they compute to the storage type (transformers: to fp32), each value by at
// most `unit` of its size. One after the other lie at most a dozen roundings in a block (norm, q
// and k, rotation, scores, softmax, mix, output, sum; norm, gate, product, down, sum) and three
// around the blocks. An fp32 sum of n products rounds n times more, errors that are mostly of
// random sign: sqrt(n). The factor 2 is for the two sides, and for steps that enlarge the error of
// what they read.
double Bound(const ModelOptions& model, WeightStorage weights, double scale) {
  const bool is_fp32 = weights == WeightStorage::kFp32;
  const double unit = is_fp32 ? std::ldexp(1, -24) : std::ldexp(1, -9);
  const double per_value =
      is_fp32 ? 1 + std::sqrt(static_cast<double>(std::max(model.width, model.ffn_width))) : 1;
  return 2 * unit * per_value * static_cast<double>(12 * model.layers + 3) * scale;
}

ScriptResult Compare(const TinyRun& run, const Trained& trained) {
  TempDir dir;
  std::ofstream(dir.File("expected.json")) << trained.expected;
  const double bound =
      Bound(run.options.model, run.options.optim.weights, LargestSize(trained.expected["logits"]));
  ScriptResult result = RunPythonScript(
      "compare_logits.py", {trained.checkpoint, dir.File("expected.json"), absl::StrCat(bound)});
  std::cout << result.output;
  return result;
}

struct Variant {
  const char* name;
  WeightStorage weights;
  void (*configure)(ModelOptions&);
};

void AsItIs(ModelOptions&) {}
void Tied(ModelOptions& model) { model.tie = Tie::kTied; }
void SwapHalves(ModelOptions& model) { model.tie = Tie::kSwapHalves; }
void Window(ModelOptions& model) { model.attention_window = 5; }
void GroupedHeads(ModelOptions& model) { model.kv_heads = 2; }
void WideHeads(ModelOptions& model) { model.head_width = 12; }

// Not the defaults, which transformers would also use for a key that it does not find; and values
// under which every part matters for the logits.
void Configure(RunOptions& options, const Variant& variant) {
  options.optim.weights = variant.weights;
  options.model.width = 32;
  options.model.heads = 4;
  options.model.kv_heads = 4;
  options.model.ffn_width = 40;
  options.model.init_deviation = 0.3;
  options.model.rope_base = 100;
  options.model.norm_epsilon = 1e-2;
  variant.configure(options.model);
}

class TransformersLogitsTest : public ::testing::TestWithParam<Variant> {};

INSTANTIATE_TEST_SUITE_P(Fp32, TransformersLogitsTest,
                         ::testing::Values(Variant{"Untied", WeightStorage::kFp32, AsItIs},
                                           Variant{"Tied", WeightStorage::kFp32, Tied},
                                           Variant{"SwapHalves", WeightStorage::kFp32, SwapHalves},
                                           Variant{"Window", WeightStorage::kFp32, Window},
                                           Variant{"GroupedHeads", WeightStorage::kFp32,
                                                   GroupedHeads},
                                           Variant{"WideHeads", WeightStorage::kFp32, WideHeads}),
                         [](const auto& test) { return test.param.name; });
INSTANTIATE_TEST_SUITE_P(
    Bf16, TransformersLogitsTest,
    ::testing::Values(Variant{"Untied", WeightStorage::kBf16Plus8, AsItIs},
                      Variant{"Tied", WeightStorage::kBf16, Tied},
                      Variant{"SwapHalves", WeightStorage::kBf16Plus8, SwapHalves},
                      Variant{"Window", WeightStorage::kBf16PlusFp32, Window},
                      Variant{"GroupedHeads", WeightStorage::kBf16Plus8, GroupedHeads}),
    [](const auto& test) { return test.param.name; });

TEST_P(TransformersLogitsTest, CheckpointGivesTheSameLogits) {
  TinyRun run(kSteps);
  Configure(run.options, GetParam());
  const Trained trained = Train(run);
  ASSERT_FALSE(HasFatalFailure());

  const ScriptResult result = Compare(run, trained);

  if (result.verdict == ScriptVerdict::kCannotRun) {
    GTEST_SKIP() << result.output;
  }
  EXPECT_EQ(result.verdict, ScriptVerdict::kEqual) << result.output;
}

// What `panthera convert` writes opens like a checkpoint, in one file or several.
TEST_P(TransformersLogitsTest, ConvertedWeightsGiveTheSameLogits) {
  TinyRun run(kSteps);
  Configure(run.options, GetParam());
  Trained trained = Train(run);
  ASSERT_FALSE(HasFatalFailure());
  const TempDir out;
  PosixFileSystem files;
  const absl::StatusOr<Conversion> converted = Convert(files, {.source = trained.checkpoint,
                                                               .output = out.File("model"),
                                                               .dtype = {},
                                                               .max_file_bytes = 10000});
  ASSERT_TRUE(converted.ok()) << converted.status();
  EXPECT_GT(converted->weight_files, 1);
  trained.checkpoint = out.File("model");

  const ScriptResult result = Compare(run, trained);

  if (result.verdict == ScriptVerdict::kCannotRun) {
    GTEST_SKIP() << result.output;
  }
  EXPECT_EQ(result.verdict, ScriptVerdict::kEqual) << result.output;
}

// The other way: weights that transformers has saved give its logits here.
TEST(TransformersWeightsTest, ARunThatStartsFromThemHasTheirLogits) {
  for (const char* dtype : {"float32", "bfloat16", "float16"}) {
    for (const int64_t max_file_bytes : {int64_t{1} << 30, int64_t{20000}}) {
      SCOPED_TRACE(absl::StrCat(dtype, " in files of ", max_file_bytes));
      const TempDir source;
      const ScriptResult saved = RunPythonScript(
          "save_llama.py", {source.File("llama"), dtype, absl::StrCat(max_file_bytes)});
      if (saved.verdict == ScriptVerdict::kCannotRun) {
        GTEST_SKIP() << saved.output;
      }
      ASSERT_EQ(saved.verdict, ScriptVerdict::kEqual) << saved.output;
      TinyRun run(kSteps);
      Configure(run.options, {"GroupedHeads", WeightStorage::kFp32, GroupedHeads});
      run.options.train.start_from = source.File("llama");
      Trained started{.checkpoint = source.File("llama"), .expected = {}};
      RunRanks(2, [&](RankWorld& rank_world) {
        World world = testing::WorldOf(rank_world);
        RunOptions options = run.options;
        ASSERT_EQ(options.Finish(rank_world.size()), absl::OkStatus());
        auto training = TrainingRun::Open(options, StartMode::kResume, world);
        ASSERT_TRUE(training.ok()) << training.status();
        if (rank_world.rank() == 0) {
          started.expected = ExpectedLogits((*training)->trainer().instance());
        }
      });
      ASSERT_FALSE(HasFatalFailure());

      const ScriptResult result = Compare(run, started);

      EXPECT_EQ(result.verdict, ScriptVerdict::kEqual) << result.output;
    }
  }
}

// That the tests above would notice a configuration that says something slightly else.
TEST(TransformersComparisonTest, ASlightlyDifferentConfigurationExceedsTheBound) {
  TinyRun run(kSteps);
  Configure(run.options, {"Window", WeightStorage::kFp32, Window});
  const Trained trained = Train(run);
  ASSERT_FALSE(HasFatalFailure());
  const std::string config_file = trained.checkpoint + "/config.json";
  const Json config = Json::parse(std::ifstream(config_file));
  const Json changes[] = {
      {{"rope_theta", 101}}, {{"rms_norm_eps", 1.01e-2}}, {{"sliding_window", 6}}};

  for (const Json& change : changes) {
    SCOPED_TRACE(change.dump());
    Json changed = config;
    changed.update(change);
    ASSERT_NE(changed, config);
    std::ofstream(config_file) << changed;

    const ScriptResult result = Compare(run, trained);

    if (result.verdict == ScriptVerdict::kCannotRun) {
      GTEST_SKIP() << result.output;
    }
    EXPECT_EQ(result.verdict, ScriptVerdict::kDifferent);
    EXPECT_THAT(result.output, ::testing::HasSubstr("largest error")) << "something else failed";
  }
}

}  // namespace
}  // namespace panthera
