#include "model/hugging_face.h"

#include <nlohmann/json.hpp>

#include "model/hugging_face_config.h"
#include "model/ops/swap_halves.h"
#include "runtime/base/check.h"

namespace panthera {
namespace {

using Json = nlohmann::ordered_json;

Json OrNull(const std::optional<int64_t>& id) { return id.has_value() ? Json(*id) : Json(nullptr); }

}  // namespace

std::string HuggingFaceConfigJson(const ModelOptions& options, DType weights,
                                  const TextMarks& marks) {
  CHECK_GT(options.kv_heads, 0);
  CHECK_GT(options.head_width, 0);
  const bool has_window = options.attention_window > 0;
  Json json;
  json["architectures"] = {has_window ? "MistralForCausalLM" : "LlamaForCausalLM"};
  json["model_type"] = has_window ? "mistral" : "llama";
  json["vocab_size"] = options.vocab_size;
  json["hidden_size"] = options.width;
  json["intermediate_size"] = options.ffn_width;
  json["num_hidden_layers"] = options.layers;
  json["num_attention_heads"] = options.heads;
  json["num_key_value_heads"] = options.kv_heads;
  json["head_dim"] = options.head_width;
  json["max_position_embeddings"] = options.sequence_length;
  json["hidden_act"] = "silu";
  json["rms_norm_eps"] = options.norm_epsilon;
  json["rope_theta"] = options.rope_base;
  json["tie_word_embeddings"] = options.tie == Tie::kTied;
  json["attention_dropout"] = 0.0;
  if (has_window) {
    json["sliding_window"] = options.attention_window;
  } else {
    json["attention_bias"] = false;
    json["mlp_bias"] = false;
  }
  json["initializer_range"] = options.init_deviation;
  json["bos_token_id"] = OrNull(marks.begin);
  json["eos_token_id"] = OrNull(marks.end);
  json["torch_dtype"] = TorchTypeName(weights);
  json["use_cache"] = true;
  return json.dump(2) + "\n";
}

TensorPiece SwappedHeadPiece(Context& ctx, const TensorPiece& table, Tensor data) {
  CHECK_EQ(table.global_shape.rank(), 2);
  const int64_t width = table.global_shape[1];
  CHECK_EQ(width % 2, 0) << "rows have no two halves";
  CHECK_EQ(table.runs.count, 1);
  CHECK_EQ(table.runs.begin % width, 0) << "the piece begins inside a row";
  CHECK_EQ(table.runs.run % width, 0) << "the piece ends inside a row";
  CHECK_EQ(data.shape(), table.data.shape());
  CHECK_EQ(data.dtype(), table.data.dtype());
  const Shape rows{table.runs.run / width, width};
  SwapHalves(ctx, table.data.Reshape(rows), data.Reshape(rows));
  return {kHeadName, table.global_shape, table.runs, data};
}

}  // namespace panthera
