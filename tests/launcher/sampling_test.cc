#include "launcher/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <gmock/gmock.h>

#include "model/init.h"
#include "runtime/comm/self_communicator.h"
#include "tests/support/random_tensor.h"

namespace panthera {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Lt;

constexpr double kNearOne = 1 - 0x1p-53;

int64_t Sample(const std::vector<float>& logits, const SamplingOptions& options, double uniform) {
  const absl::StatusOr<int64_t> token = SampleToken(logits, options, uniform);
  EXPECT_TRUE(token.ok()) << token.status();
  return token.value_or(-1);
}

// The tokens that a fine grid of uniform numbers draws.
std::set<int64_t> Reachable(const std::vector<float>& logits, const SamplingOptions& options) {
  std::set<int64_t> tokens;
  for (int i = 0; i < 1000; ++i) {
    tokens.insert(Sample(logits, options, i / 1000.0));
  }
  return tokens;
}

float Log(double probability) { return static_cast<float>(std::log(probability)); }

TEST(SampleTokenTest, TemperatureZeroTakesTheLikeliestAndOfEqualOnesTheFirst) {
  for (const double uniform : {0.0, 0.5, kNearOne}) {
    EXPECT_EQ(Sample({1, 3, 2, 3}, {.temperature = 0}, uniform), 1);
  }
}

TEST(SampleTokenTest, TopKBreaksTiesByTokenId) {
  EXPECT_THAT(Reachable({1, 2, 2, 2, 0}, {.top_k = 2}), ElementsAre(1, 2));
  EXPECT_THAT(Reachable({2, 1, 1, 1}, {.top_k = 2}), ElementsAre(0, 1));
  EXPECT_THAT(Reachable({2, 1, 1, 1}, {.top_k = 9}), ElementsAre(0, 1, 2, 3));
}

TEST(SampleTokenTest, NucleusIsTheFewestTokensThatReachTheProbability) {
  // Probabilities 1/4, 1/2, 1/8, 1/8 up to the rounding of the logits.
  const std::vector<float> logits = {Log(0.25), Log(0.5), Log(0.125), Log(0.125)};
  EXPECT_THAT(Reachable(logits, {.top_p = 0}), ElementsAre(1));
  EXPECT_THAT(Reachable(logits, {.top_p = 0.499}), ElementsAre(1));
  EXPECT_THAT(Reachable(logits, {.top_p = 0.501}), ElementsAre(0, 1));
  EXPECT_THAT(Reachable(logits, {.top_p = 0.749}), ElementsAre(0, 1));
  EXPECT_THAT(Reachable(logits, {.top_p = 0.751}), ElementsAre(0, 1, 2));
  EXPECT_THAT(Reachable(logits, {.top_p = 1}), ElementsAre(0, 1, 2, 3));
}

TEST(SampleTokenTest, NucleusThatIsReachedExactlyTakesNoMore) {
  // Equal logits have weights of exactly one, so that half of four tokens is exactly two.
  EXPECT_THAT(Reachable({5, 5, 5, 5}, {.top_p = 0.5}), ElementsAre(0, 1));
}

TEST(SampleTokenTest, NucleusCountsProbabilityAmongTheTopK) {
  // Of the first two alone the first has 2/3.
  const std::vector<float> logits = {Log(0.5), Log(0.25), Log(0.25)};
  EXPECT_THAT(Reachable(logits, {.top_k = 2, .top_p = 0.6}), ElementsAre(0));
  EXPECT_THAT(Reachable(logits, {.top_p = 0.6}), ElementsAre(0, 1));
}

TEST(SampleTokenTest, EndsOfTheUniformIntervalDrawTheFirstAndLastTokenWithWeight) {
  EXPECT_EQ(Sample({0, 1, 2}, {}, 0), 0);
  EXPECT_EQ(Sample({0, 1, 2}, {}, kNearOne), 2);
  // exp(-2000) is 0 in double precision.
  EXPECT_EQ(Sample({-2000, 1, 0.5, -2000}, {}, 0), 1);
  EXPECT_EQ(Sample({-2000, 1, 0.5, -2000}, {}, kNearOne), 2);
  EXPECT_EQ(Sample({3}, {}, kNearOne), 0);
}

TEST(SampleTokenTest, DrawsInProportionToTheProbabilities) {
  const std::vector<float> logits = {Log(0.25), Log(0.75)};
  EXPECT_EQ(Sample(logits, {}, 0.249), 0);
  EXPECT_EQ(Sample(logits, {}, 0.251), 1);
  // Divided by a temperature of 1/2 the odds are squared: 1 to 9.
  EXPECT_EQ(Sample(logits, {.temperature = 0.5}, 0.099), 0);
  EXPECT_EQ(Sample(logits, {.temperature = 0.5}, 0.101), 1);
}

TEST(SampleTokenTest, RefusesLogitsThatAreNotFinite) {
  const float inf = std::numeric_limits<float>::infinity();
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), inf, -inf}) {
    for (const SamplingOptions& options :
         {SamplingOptions{}, SamplingOptions{.temperature = 0}, SamplingOptions{.top_k = 2},
          SamplingOptions{.top_p = 0.5}}) {
      const absl::StatusOr<int64_t> token =
          SampleToken(std::vector<float>{1, 2, bad, 4}, options, 0.5);
      ASSERT_FALSE(token.ok());
      EXPECT_THAT(std::string(token.status().message()),
                  HasSubstr("the checkpoint gives non-finite logits"));
    }
  }
}

constexpr int64_t kContext = 12;

ModelOptions SmallModel(int64_t vocab_size) {
  ModelOptions options;
  options.vocab_size = vocab_size;
  options.width = 16;
  options.layers = 2;
  options.heads = 2;
  options.kv_heads = 1;
  options.ffn_width = 24;
  options.sequence_length = kContext;
  // Large enough for the likeliest text not to repeat one token.
  options.init_deviation = 1;
  CHECK_OK(options.Finish());
  return options;
}

struct Model {
  explicit Model(int64_t vocab_size)
      : instance(SmallModel(vocab_size), WeightStorage::kFp32, self,
                 std::make_unique<Context>(Device(), ledger, int64_t{1} << 24), kContext) {
    InitializeShards(instance.params(), 5);
    instance.params().Publish(self, instance.context().compute(), instance.context().exchange());
  }

  std::vector<int32_t> Generate(const std::vector<int32_t>& prompt, int64_t count,
                                const SamplingOptions& options, int64_t vocab_size) {
    std::vector<int32_t> tokens;
    const absl::Status status =
        Generator(instance, vocab_size).Generate(prompt, count, options, [&](int32_t token) {
          tokens.push_back(token);
          return true;
        });
    EXPECT_EQ(status, absl::OkStatus());
    return tokens;
  }

  MemoryLedger ledger;
  SelfCommunicator self;
  ModelInstance instance;
};

constexpr int64_t kVocabulary = 40;

std::vector<int32_t> Last(const std::vector<int32_t>& text, size_t count) {
  return {text.end() - static_cast<std::ptrdiff_t>(count), text.end()};
}

std::vector<int32_t> Joined(std::vector<int32_t> text, const std::vector<int32_t>& more) {
  text.insert(text.end(), more.begin(), more.end());
  return text;
}

TEST(GeneratorTest, CachedDecodingChoosesWhatAFullForwardPassChooses) {
  Model model(kVocabulary);
  const std::vector<int32_t> prompt = {7, 3, 11};
  const auto count = kContext + 1 - static_cast<int64_t>(prompt.size());
  const std::vector<int32_t> text =
      Joined(prompt, model.Generate(prompt, count, {.temperature = 0}, kVocabulary));
  ASSERT_EQ(text.size(), kContext + 1);

  const testing::HostTensor tokens({1, kContext}, DType::kI32);
  const testing::HostTensor targets({1, kContext}, DType::kI32);
  const testing::HostTensor losses({kContext}, DType::kF32);
  const testing::HostTensor correct({kContext}, DType::kI32);
  std::copy_n(text.begin(), kContext, tokens.tensor().data<int32_t>());
  std::copy_n(text.begin() + 1, kContext, targets.tensor().data<int32_t>());
  model.instance.model().Loss(model.instance.context(), model.instance.params(),
                              {tokens.tensor(), targets.tensor()}, losses.tensor(),
                              correct.tensor());
  for (auto i = static_cast<int64_t>(prompt.size()) - 1; i < kContext; ++i) {
    EXPECT_EQ(correct.tensor().data<int32_t>()[i], 1) << i;
  }
}

TEST(GeneratorTest, GoesOnFromTheLastHalfWhenTheContextIsFull) {
  Model model(kVocabulary);
  const SamplingOptions greedy{.temperature = 0};
  const std::vector<int32_t> prompt = {7};
  const std::vector<int32_t> text =
      Joined(prompt, model.Generate(prompt, 4 * kContext, greedy, kVocabulary));
  ASSERT_EQ(text.size(), 4 * kContext + 1);
  // The cache holds kContext tokens when the token after them has been drawn: the next comes from
  // the last half of a context alone.
  const std::vector<int32_t> full(text.begin(), text.begin() + kContext + 1);
  const std::vector<int32_t> refilled(text.begin() + kContext + 1,
                                      text.begin() + kContext + 1 + kContext / 2);
  EXPECT_EQ(model.Generate(Last(full, kContext / 2), kContext / 2, greedy, kVocabulary), refilled);
}

TEST(GeneratorTest, TakesTheEndOfAPromptThatIsLongerThanTheContext) {
  Model model(kVocabulary);
  std::vector<int32_t> prompt;
  for (int32_t i = 0; i < 3 * kContext; ++i) {
    prompt.push_back((i * 7) % kVocabulary);
  }
  EXPECT_EQ(model.Generate(prompt, 5, {.seed = 1}, kVocabulary),
            model.Generate(Last(prompt, kContext - 1), 5, {.seed = 1}, kVocabulary));
}

TEST(GeneratorTest, SeedDecidesTheText) {
  Model model(kVocabulary);
  const auto text = [&](int64_t seed) {
    return model.Generate({7}, 30, {.seed = seed}, kVocabulary);
  };
  EXPECT_EQ(text(1), text(1));
  EXPECT_NE(text(1), text(2));
}

TEST(GeneratorTest, NeverDrawsIdsThatTheTokenizerDoesNotHave) {
  // "bytes" has 257 ids. Of 200 nearly even draws among 320, all would lie below with a probability
  // of (257/320)^200 = 1e-19.
  Model model(320);
  const SamplingOptions even{.temperature = 100};
  EXPECT_THAT(model.Generate({7}, 200, even, 257), Each(Lt(257)));
  const std::vector<int32_t> any = model.Generate({7}, 200, even, 320);
  EXPECT_GE(*std::max_element(any.begin(), any.end()), 257);
}

TEST(GeneratorTest, ReportsACheckpointThatGivesNoNumbers) {
  Model model(kVocabulary);
  const Tensor table = model.instance.params().value(model.instance.model().embedding());
  std::fill_n(table.data<float>(), table.elements(), std::numeric_limits<float>::quiet_NaN());
  const std::vector<int32_t> prompt = {7};
  const absl::Status status =
      Generator(model.instance, kVocabulary).Generate(prompt, 3, {}, [](int32_t) { return true; });
  EXPECT_THAT(std::string(status.message()), HasSubstr("non-finite logits"));
}

// An arena of exactly the planned size, which aborts when it is exceeded.
TEST(GeneratorTest, PlansTheArenaOfEveryPromptLengthAndCount) {
  SelfCommunicator self;
  for (const WeightStorage weights : {WeightStorage::kFp32, WeightStorage::kBf16}) {
    for (int64_t prompt_tokens = 1; prompt_tokens <= kContext + 2; ++prompt_tokens) {
      for (const int64_t count : {int64_t{1}, int64_t{2}, kContext / 2, 3 * kContext}) {
        MemoryLedger plan;
        ModelInstance meta(SmallModel(kVocabulary), weights, self, Context::Plan({}, plan),
                           kContext);
        Generator(meta, kVocabulary).Plan(prompt_tokens, count);
        const int64_t planned = meta.context().arena().peak_bytes();
        MemoryLedger ledger;
        ModelInstance real(SmallModel(kVocabulary), weights, self,
                           std::make_unique<Context>(Device(), ledger, planned), kContext);
        InitializeShards(real.params(), 5);
        real.params().Publish(self, real.context().compute(), real.context().exchange());
        const std::vector<int32_t> prompt(static_cast<size_t>(prompt_tokens), 7);
        ASSERT_EQ(
            Generator(real, kVocabulary).Generate(prompt, count, {}, [](int32_t) { return true; }),
            absl::OkStatus());
        EXPECT_EQ(real.context().arena().peak_bytes(), planned) << prompt_tokens << " " << count;
      }
    }
  }
}

TEST(GeneratorTest, StopsWhenTheReceiverHasEnough) {
  Model model(kVocabulary);
  int received = 0;
  const std::vector<int32_t> prompt = {7};
  EXPECT_EQ(Generator(model.instance, kVocabulary)
                .Generate(prompt, 10, {}, [&](int32_t) { return ++received < 3; }),
            absl::OkStatus());
  EXPECT_EQ(received, 3);
}

}  // namespace
}  // namespace panthera
