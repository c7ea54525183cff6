// Directories of Hugging Face models: part 0 is config.json, part 1 the index of tensors, parts 2
// and 3 the two files that it names.
#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "model/hugging_face_config.h"
#include "runtime/base/check.h"
#include "runtime/checkpoint/float_elements.h"
#include "runtime/checkpoint/weight_files.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/memory_file_system.h"

namespace panthera::testing {
namespace {

constexpr char kDirectory[] = "model";
constexpr size_t kLengthBytes = 8;
constexpr size_t kFirstFile = 2;
constexpr size_t kNumParts = 4;

constexpr char kConfig[] = R"({
  "_name_or_path": "somebody/something", "architectures": ["LlamaForCausalLM"],
  "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": [2, 3],
  "hidden_act": "silu", "hidden_size": 16, "initializer_range": 0.02, "intermediate_size": 24,
  "max_position_embeddings": 64, "mlp_bias": false, "model_type": "llama",
  "num_attention_heads": 2, "num_hidden_layers": 2, "num_key_value_heads": 1,
  "pad_token_id": null, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
  "rope_scaling": {"rope_type": "default"}, "rope_theta": 10000.0,
  "tie_word_embeddings": true, "torch_dtype": "bfloat16",
  "transformers_version": "4.46.3", "use_cache": true, "vocab_size": 23
})";

// A file with some numbers after its header.
std::string FileOf(const SafetensorsFile& file) {
  std::string bytes = file.header.bytes;
  for (int64_t i = static_cast<int64_t>(bytes.size()); i < file.header.file_bytes; ++i) {
    bytes.push_back(static_cast<char>(i * 7));
  }
  return bytes;
}

class HuggingFaceTarget final : public FuzzTarget {
 public:
  std::vector<Parts> Seeds() const override {
    const std::vector<TensorDescription> tensors = {
        {"model.embed_tokens.weight", DType::kF32, Shape{3, 4}},
        {"model.norm.weight", DType::kF32, Shape{4}},
        {"lm_head.weight", DType::kBF16, Shape{5, 2}},
        {"half", DType::kF16, Shape{7}}};
    const std::vector<SafetensorsFile> files = SpreadOverFiles("model", tensors, 64);
    CHECK_EQ(files.size(), size_t{2});
    return {{kConfig, SafetensorsIndexJson(files), FileOf(files[0]), FileOf(files[1])}};
  }

  std::vector<std::string> Words() const override {
    return {"\"weight_map\"",
            "\"model-00001-of-00002.safetensors\"",
            "\"model.norm.weight\"",
            "\"dtype\"",
            "\"data_offsets\"",
            "\"rope_parameters\"",
            "\"head_dim\"",
            "\"mistral\"",
            "\"sliding_window\"",
            "F16",
            "../",
            "null",
            "true",
            "-1",
            "1e300",
            "[[[[",
            "{",
            "}",
            ",",
            "\\n"};
  }

  // The headers' lengths.
  void Repair(uint64_t /*choice*/, Parts& parts) const override {
    for (size_t i = kFirstFile; i < parts.size(); ++i) {
      const size_t end = parts[i].find("}}");
      if (end != std::string::npos && end >= kLengthBytes) {
        const uint64_t length = (end + 2 - kLengthBytes + 7) / 8 * 8;
        std::memcpy(parts[i].data(), &length, kLengthBytes);
      }
    }
  }

  Verdict Check(const Parts& given) override {
    Parts parts = given;
    parts.resize(kNumParts);
    const Verdict config = CheckConfig(parts[0]);
    const Verdict weights = CheckWeights(parts);
    return config == Verdict::kAccepted && weights == Verdict::kAccepted ? Verdict::kAccepted
                                                                         : Verdict::kRefused;
  }

 private:
  // What was accepted can be used, and says the same under another type of weights.
  static Verdict CheckConfig(const std::string& text) {
    const absl::StatusOr<ModelOptions> options = ParseHuggingFaceConfig(text, "config.json");
    if (!options.ok()) {
      CheckIsOneLine(options.status());
      return Verdict::kRefused;
    }
    CHECK_GT(options->heads, 0);
    CHECK_EQ(options->heads % options->kv_heads, 0);
    CHECK_EQ(options->head_width % 2, 0);
    const absl::StatusOr<ModelOptions> again =
        ParseHuggingFaceConfig(WithWeightType(text, DType::kF16), "config.json");
    CHECK_OK(again.status());
    CHECK_EQ(again->width, options->width);
    CHECK_EQ(again->rope_base, options->rope_base);
    return Verdict::kAccepted;
  }

  // Every tensor that was found can be read, and is what lies at its place.
  static Verdict CheckWeights(const Parts& parts) {
    const std::vector<std::string> names = {"model-00001-of-00002.safetensors",
                                            "model-00002-of-00002.safetensors"};
    MemoryFileSystem files;
    files.Put(absl::StrCat(kDirectory, "/", kWeightIndexName), parts[1]);
    for (size_t i = 0; i < names.size(); ++i) {
      files.Put(absl::StrCat(kDirectory, "/", names[i]), parts[kFirstFile + i]);
    }
    const absl::StatusOr<WeightFiles> weights = WeightFiles::Open(files, kDirectory);
    if (!weights.ok()) {
      CheckIsOneLine(weights.status());
      return Verdict::kRefused;
    }
    WeightReader reader(files, *weights);
    for (const StoredTensor& tensor : weights->tensors()) {
      CHECK_EQ(weights->Find(tensor.tensor.name), &tensor);
      std::string bytes(static_cast<size_t>(tensor.tensor.bytes()), 'x');
      CHECK_OK(reader.Read(tensor, 0, std::as_writable_bytes(std::span(bytes))));
      CHECK_EQ(bytes, files.Get(weights->PathOf(tensor))
                          .substr(static_cast<size_t>(tensor.begin), bytes.size()));
      if (IsWeightType(tensor.tensor.dtype)) {
        std::vector<float> values(bytes.size() / static_cast<size_t>(SizeOf(tensor.tensor.dtype)));
        DecodeFloats(std::as_bytes(std::span(bytes)), tensor.tensor.dtype, values);
      }
    }
    return Verdict::kAccepted;
  }
};

}  // namespace

std::unique_ptr<FuzzTarget> MakeHuggingFaceTarget() {
  return std::make_unique<HuggingFaceTarget>();
}

}  // namespace panthera::testing
