#include "model/hugging_face.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace panthera {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

ModelOptions Example() {
  ModelOptions options;
  options.vocab_size = 50304;
  options.width = 768;
  options.layers = 12;
  options.heads = 12;
  options.kv_heads = 4;
  options.head_width = 64;
  options.ffn_width = 2048;
  options.sequence_length = 1024;
  return options;
}

TEST(HuggingFaceTest, ConfigDescribesALlama) {
  EXPECT_EQ(HuggingFaceConfigJson(Example(), DType::kBF16, {.begin = 1, .end = 2}), R"({
  "architectures": [
    "LlamaForCausalLM"
  ],
  "model_type": "llama",
  "vocab_size": 50304,
  "hidden_size": 768,
  "intermediate_size": 2048,
  "num_hidden_layers": 12,
  "num_attention_heads": 12,
  "num_key_value_heads": 4,
  "head_dim": 64,
  "max_position_embeddings": 1024,
  "hidden_act": "silu",
  "rms_norm_eps": 1e-05,
  "rope_theta": 10000.0,
  "tie_word_embeddings": false,
  "attention_dropout": 0.0,
  "attention_bias": false,
  "mlp_bias": false,
  "initializer_range": 0.02,
  "bos_token_id": 1,
  "eos_token_id": 2,
  "torch_dtype": "bfloat16",
  "use_cache": true
}
)");
}

TEST(HuggingFaceTest, AWindowMakesItAMistral) {
  ModelOptions options = Example();
  options.attention_window = 256;

  EXPECT_THAT(HuggingFaceConfigJson(options, DType::kF32, {}),
              AllOf(HasSubstr("\"MistralForCausalLM\""), HasSubstr("\"model_type\": \"mistral\""),
                    HasSubstr("\"sliding_window\": 256"), HasSubstr("\"float32\""),
                    HasSubstr("\"bos_token_id\": null"), Not(HasSubstr("mlp_bias"))));
}

TEST(HuggingFaceTest, OnlyATiedModelIsExportedTied) {
  ModelOptions options = Example();
  const auto config = [&options](Tie tie) {
    options.tie = tie;
    return HuggingFaceConfigJson(options, DType::kF32, {});
  };

  EXPECT_THAT(config(Tie::kTied), HasSubstr("\"tie_word_embeddings\": true"));
  EXPECT_THAT(config(Tie::kSwapHalves), HasSubstr("\"tie_word_embeddings\": false"));
  EXPECT_THAT(config(Tie::kNone), HasSubstr("\"tie_word_embeddings\": false"));
}

TEST(HuggingFaceTest, SwappedHeadGivesTheLogitsOfTheSwappedFeatures) {
  // Rows 1 and 2 of a table with five rows of four features.
  std::vector<float> table = {1, 2, 3, 4, 5, 6, 7, 8};
  std::vector<float> head(8);
  const TensorPiece piece = {"model.embed_tokens.weight", Shape{5, 4},
                             ElementRuns::Contiguous(4, 8),
                             Tensor(table.data(), {8}, DType::kF32, Device{})};

  MemoryLedger ledger;
  Context ctx(Device{}, ledger, 0);
  const TensorPiece swapped =
      SwappedHeadPiece(ctx, piece, Tensor(head.data(), {8}, DType::kF32, Device{}));

  EXPECT_EQ(swapped.name, "lm_head.weight");
  EXPECT_EQ(swapped.global_shape, (Shape{5, 4}));
  EXPECT_EQ(swapped.runs, piece.runs);
  EXPECT_THAT(head, ElementsAre(3, 4, 1, 2, 7, 8, 5, 6));
  // h' . e = h . swap(e) for h = (1, 10, 100, 1000), h' = (100, 1000, 1, 10).
  EXPECT_EQ(100 * 1 + 1000 * 2 + 1 * 3 + 10 * 4,
            1 * head[0] + 10 * head[1] + 100 * head[2] + 1000 * head[3]);
}

TEST(HuggingFaceTest, SwappedHeadWorksOnBf16) {
  std::vector<BF16> table = {BF16(1), BF16(2)};
  std::vector<BF16> head(2);
  const TensorPiece piece = {"t", Shape{1, 2}, ElementRuns::Contiguous(0, 2),
                             Tensor(table.data(), {2}, DType::kBF16, Device{})};

  MemoryLedger ledger;
  Context ctx(Device{}, ledger, 0);
  (void)SwappedHeadPiece(ctx, piece, Tensor(head.data(), {2}, DType::kBF16, Device{}));

  EXPECT_THAT(head, ElementsAre(BF16(2), BF16(1)));
}

TEST(HuggingFaceDeathTest, APieceThatCutsARowIsABug) {
  std::vector<float> table(6);
  const TensorPiece piece = {"t", Shape{2, 4}, ElementRuns::Contiguous(0, 6),
                             Tensor(table.data(), {6}, DType::kF32, Device{})};

  MemoryLedger ledger;
  Context ctx(Device{}, ledger, 0);
  EXPECT_DEATH((void)SwappedHeadPiece(ctx, piece, piece.data), "ends inside a row");
}

}  // namespace
}  // namespace panthera
