#include "model/hugging_face_config.h"

#include <map>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "model/hugging_face.h"

namespace panthera {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using Json = nlohmann::json;

// The shape of Llama 3.2 1B, as published but for its scaled positions.
Json Published() {
  return Json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": false,
    "attention_dropout": 0.0, "bos_token_id": 128000, "eos_token_id": [128001, 128009],
    "head_dim": 64, "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02,
    "intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": false,
    "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8,
    "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 500000.0,
    "tie_word_embeddings": true, "torch_dtype": "bfloat16", "use_cache": true,
    "vocab_size": 128256})");
}

absl::StatusOr<ModelOptions> Parse(const Json& json) {
  return ParseHuggingFaceConfig(json.dump(), "DIR/config.json");
}

std::string Error(const Json& json) {
  const absl::StatusOr<ModelOptions> options = Parse(json);
  EXPECT_FALSE(options.ok()) << json;
  return std::string(options.status().message());
}

TEST(HuggingFaceConfigTest, ReadsAPublishedLlama) {
  const absl::StatusOr<ModelOptions> options = Parse(Published());
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->vocab_size, 128256);
  EXPECT_EQ(options->width, 2048);
  EXPECT_EQ(options->layers, 16);
  EXPECT_EQ(options->heads, 32);
  EXPECT_EQ(options->kv_heads, 8);
  EXPECT_EQ(options->head_width, 64);
  EXPECT_EQ(options->ffn_width, 8192);
  EXPECT_EQ(options->sequence_length, 131072);
  EXPECT_EQ(options->attention_window, 0);
  EXPECT_EQ(options->rope_base, 500000);
  EXPECT_EQ(options->norm_epsilon, 1e-5);
  EXPECT_EQ(options->tie, Tie::kTied);
}

TEST(HuggingFaceConfigTest, KeysThatAreNotThereHaveTheValuesThatTransformersGivesThem) {
  Json json = Published();
  for (const char* key : {"head_dim", "num_key_value_heads", "rms_norm_eps", "rope_theta",
                          "tie_word_embeddings", "model_type", "hidden_act"}) {
    json.erase(key);
  }
  const absl::StatusOr<ModelOptions> options = Parse(json);
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->kv_heads, 32);
  EXPECT_EQ(options->head_width, 64);
  EXPECT_EQ(options->norm_epsilon, 1e-6);
  EXPECT_EQ(options->rope_base, 10000);
  EXPECT_EQ(options->tie, Tie::kNone);
}

TEST(HuggingFaceConfigTest, ReadsTheBaseWhereTransformers5WritesIt) {
  Json json = Published();
  json.erase("rope_theta");
  json["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 7e5}};
  const absl::StatusOr<ModelOptions> options = Parse(json);
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->rope_base, 7e5);
}

TEST(HuggingFaceConfigTest, ReadsWhatItsWriterWrites) {
  ModelOptions written;
  written.vocab_size = 300;
  written.width = 48;
  written.layers = 3;
  written.heads = 4;
  written.kv_heads = 2;
  written.head_width = 16;
  written.ffn_width = 100;
  written.sequence_length = 77;
  written.rope_base = 12345.678;
  written.norm_epsilon = 1.25e-7;
  for (const int64_t window : {0, 31}) {
    for (const Tie tie : {Tie::kNone, Tie::kTied}) {
      written.attention_window = window;
      written.tie = tie;
      const absl::StatusOr<ModelOptions> read = ParseHuggingFaceConfig(
          HuggingFaceConfigJson(written, DType::kBF16, {}), "DIR/config.json");
      ASSERT_TRUE(read.ok()) << read.status();
      EXPECT_EQ(HuggingFaceConfigJson(*read, DType::kBF16, {}),
                HuggingFaceConfigJson(written, DType::kBF16, {}));
    }
  }
}

struct Refusal {
  const char* key;
  Json value;  // a discarded one: the key is removed
  const char* named;
  const char* way_out;
};

TEST(HuggingFaceConfigTest, RefusesWhatItCannotHonourAndNamesTheKey) {
  const Json absent(Json::value_t::discarded);
  const std::vector<Refusal> refusals = {
      {"model_type", "qwen2", "model_type = \"qwen2\"", "supported are \"llama\""},
      {"rope_scaling",
       {{"rope_type", "llama3"}, {"factor", 32.0}},
       "rope_scaling of type \"llama3\"",
       "supported are null and \"default\""},
      {"rope_scaling",
       {{"type", "linear"}, {"factor", 2.0}},
       "rope_scaling of type \"linear\"",
       "\"default\""},
      {"rope_parameters", {{"rope_type", "yarn"}}, "rope_parameters of type \"yarn\"", "default"},
      {"rope_scaling", 2, "rope_scaling = 2", "not an object"},
      {"rope_theta", "big", "rope_theta = \"big\"", "not a number"},
      {"rope_theta", 0, "rope_theta = 0", "(1 to"},
      {"attention_bias", true, "attention_bias = true", "supported are false"},
      {"mlp_bias", true, "mlp_bias = true", "supported are false"},
      {"hidden_act", "gelu", "hidden_act = \"gelu\"", "\"silu\""},
      {"attention_dropout", 0.1, "attention_dropout = 0.1", "supported are 0"},
      {"partial_rotary_factor", 0.5, "partial_rotary_factor = 0.5", "supported are 1"},
      {"quantization_config", {{"bits", 4}}, "quantization_config", "supported are null"},
      {"hidden_size", absent, "hidden_size is missing", "add it"},
      {"hidden_size", 2048.5, "hidden_size = 2048.5", "not a whole number"},
      {"num_hidden_layers", 0, "num_hidden_layers = 0", "(1 to 4096)"},
      {"vocab_size", -5, "vocab_size = -5", "out of range"},
      {"num_key_value_heads", 5, "model.kv_heads = 5", "divisor"},
      {"head_dim", 63, "model.head_width = 63", "use 62 or 64"},
      {"tie_word_embeddings", "yes", "tie_word_embeddings = \"yes\"", "true or false"},
  };
  for (const Refusal& refusal : refusals) {
    Json json = Published();
    if (refusal.value.is_discarded()) {
      json.erase(refusal.key);
    } else {
      json[refusal.key] = refusal.value;
    }
    EXPECT_THAT(Error(json), AllOf(StartsWith("DIR/config.json: "), HasSubstr(refusal.named),
                                   HasSubstr(refusal.way_out)))
        << refusal.key;
  }
}

// transformers' defaults of these keys are those of one Mistral, whatever the sizes here.
TEST(HuggingFaceConfigTest, AMistralMustSayItsWindowAndItsKeyValueHeads) {
  Json json = Published();
  json["model_type"] = "mistral";
  json["sliding_window"] = 4096;
  ASSERT_TRUE(Parse(json).ok()) << Parse(json).status();
  EXPECT_EQ(Parse(json)->attention_window, 4096);
  json["sliding_window"] = nullptr;
  ASSERT_TRUE(Parse(json).ok()) << Parse(json).status();
  EXPECT_EQ(Parse(json)->attention_window, 0);
  for (const std::string key : {"sliding_window", "num_key_value_heads"}) {
    Json without = json;
    without.erase(key);
    EXPECT_THAT(Error(without), AllOf(StartsWith("DIR/config.json: "),
                                      HasSubstr("the key " + key + " is missing; add it")));
  }
}

TEST(HuggingFaceConfigTest, RefusesWhatIsNoConfigurationAtAll) {
  for (const std::string text : {"", "[1]", "{\"a\": ", "{\"hidden_size\": "}) {
    EXPECT_THAT(std::string(ParseHuggingFaceConfig(text, "F").status().message()),
                HasSubstr("F is not a JSON object"));
  }
  const std::string deep =
      "{\"hidden_act\": " + std::string(100000, '[') + std::string(100000, ']') + "}";
  EXPECT_FALSE(ParseHuggingFaceConfig(deep, "F").ok());
}

TEST(HuggingFaceConfigTest, ANewTypeOfWeightsChangesNothingElse) {
  Json expected = Published();
  const std::string changed = WithWeightType(expected.dump(), DType::kF16);
  expected["torch_dtype"] = "float16";
  EXPECT_EQ(Json::parse(changed), expected);

  expected.erase("torch_dtype");
  expected["dtype"] = "float16";
  const std::string newer = WithWeightType(expected.dump(), DType::kF32);
  expected["dtype"] = "float32";
  EXPECT_EQ(Json::parse(newer), expected);
}

}  // namespace
}  // namespace panthera
