#include "tests/support/plain_model.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

#include "runtime/base/check.h"

namespace panthera::testing {
namespace {

constexpr int64_t kVocabulary = 23;
constexpr int64_t kWidth = 16;
constexpr int64_t kKeyWidth = 8;
constexpr int64_t kHidden = 24;

template <typename Word>
void AppendWord(Word word, std::string& bytes) {
  char text[sizeof(word)];
  std::memcpy(text, &word, sizeof(word));
  bytes.append(text, sizeof(word));
}

// The pattern of a binary16: `value` is zero or has no more digits than it can hold.
uint16_t HalfBits(float value) {
  const auto sign = static_cast<uint16_t>(std::signbit(value) ? 0x8000 : 0);
  if (value == 0) {
    return sign;
  }
  int exponent = 0;
  const float fraction = std::frexp(std::abs(value), &exponent);
  return static_cast<uint16_t>(sign + ((exponent + 14) << 10) + static_cast<int>(fraction * 2048) -
                               1024);
}

PlainTensor Numbered(std::vector<int64_t> shape, int number, float middle) {
  PlainTensor tensor{.shape = std::move(shape), .values = {}};
  int64_t elements = 1;
  for (const int64_t size : tensor.shape) {
    elements *= size;
  }
  for (int64_t i = 0; i < elements; ++i) {
    tensor.values.push_back(middle + static_cast<float>((i * 37 + number * 101) % 101 - 50) / 128);
  }
  return tensor;
}

}  // namespace

std::string PlainElements(const std::vector<float>& values, const std::string& type) {
  std::string bytes;
  for (const float value : values) {
    uint32_t pattern = 0;
    std::memcpy(&pattern, &value, sizeof(pattern));
    if (type == "F32") {
      AppendWord(pattern, bytes);
    } else if (type == "BF16") {
      AppendWord(static_cast<uint16_t>(pattern >> 16), bytes);
    } else {
      CHECK_EQ(type, "F16");
      AppendWord(HalfBits(value), bytes);
    }
  }
  return bytes;
}

std::string PlainSafetensors(const PlainTensors& tensors, const std::string& type) {
  std::vector<std::string> entries;
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    const size_t begin = data.size();
    data += PlainElements(tensor.values, type);
    entries.push_back(absl::StrFormat(R"("%s":{"dtype":"%s","shape":[%s],"data_offsets":[%d,%d]})",
                                      name, type, absl::StrJoin(tensor.shape, ","), begin,
                                      data.size()));
  }
  const std::string header = absl::StrCat("{", absl::StrJoin(entries, ","), "}");
  std::string bytes;
  AppendWord(static_cast<uint64_t>(header.size()), bytes);
  return bytes + header + data;
}

PlainModel::PlainModel()
    : config({{"architectures", R"(["LlamaForCausalLM"])"},
              {"model_type", R"("llama")"},
              {"vocab_size", "23"},
              {"hidden_size", "16"},
              {"intermediate_size", "24"},
              {"num_hidden_layers", "2"},
              {"num_attention_heads", "2"},
              {"num_key_value_heads", "1"},
              {"max_position_embeddings", "16"},
              {"rms_norm_eps", "1e-05"},
              {"rope_theta", "10000.0"},
              {"tie_word_embeddings", "false"},
              {"torch_dtype", R"("bfloat16")"}}) {
  int number = 0;
  const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
    const float middle = shape.size() == 1 ? 1 : 0;
    tensors[name] = Numbered(std::move(shape), number, middle);
    ++number;
  };
  add("model.embed_tokens.weight", {kVocabulary, kWidth});
  for (const char* layer : {"model.layers.0.", "model.layers.1."}) {
    add(absl::StrCat(layer, "input_layernorm.weight"), {kWidth});
    add(absl::StrCat(layer, "self_attn.q_proj.weight"), {kWidth, kWidth});
    add(absl::StrCat(layer, "self_attn.k_proj.weight"), {kKeyWidth, kWidth});
    add(absl::StrCat(layer, "self_attn.v_proj.weight"), {kKeyWidth, kWidth});
    add(absl::StrCat(layer, "self_attn.o_proj.weight"), {kWidth, kWidth});
    add(absl::StrCat(layer, "post_attention_layernorm.weight"), {kWidth});
    add(absl::StrCat(layer, "mlp.gate_proj.weight"), {kHidden, kWidth});
    add(absl::StrCat(layer, "mlp.up_proj.weight"), {kHidden, kWidth});
    add(absl::StrCat(layer, "mlp.down_proj.weight"), {kWidth, kHidden});
  }
  add("model.norm.weight", {kWidth});
  add("lm_head.weight", {kVocabulary, kWidth});
}

void PlainModel::Write(const std::string& directory, const std::string& type, int num_files) const {
  const auto pair = [](std::string* out, const auto& entry) {
    absl::StrAppend(out, "\"", entry.first, "\": ", entry.second);
  };
  WriteText(directory + "/config.json",
            absl::StrCat("{", absl::StrJoin(config, ",\n", pair), "}\n"));
  if (num_files == 1) {
    WriteText(directory + "/model.safetensors", PlainSafetensors(tensors, type));
    return;
  }
  std::vector<PlainTensors> parts(static_cast<size_t>(num_files));
  std::vector<std::string> places;
  size_t next = 0;
  for (const auto& [name, tensor] : tensors) {
    const size_t part = next % parts.size();
    parts[part][name] = tensor;
    places.push_back(
        absl::StrFormat(R"("%s": "model-%05d-of-%05d.safetensors")", name, part + 1, num_files));
    ++next;
  }
  for (size_t part = 0; part < parts.size(); ++part) {
    WriteText(absl::StrFormat("%s/model-%05d-of-%05d.safetensors", directory, part + 1, num_files),
              PlainSafetensors(parts[part], type));
  }
  WriteText(
      directory + "/model.safetensors.index.json",
      absl::StrCat(R"({"metadata": {}, "weight_map": {)", absl::StrJoin(places, ",\n"), "}}\n"));
}

void WriteText(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  CHECK(file.flush().good()) << path;
}

std::string ReadText(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  CHECK(file.good()) << path;
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

}  // namespace panthera::testing
