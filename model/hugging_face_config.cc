#include "model/hugging_face_config.h"

#include <initializer_list>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include <nlohmann/json.hpp>

#include "runtime/base/check.h"
#include "runtime/base/one_line.h"
#include "runtime/base/status_macros.h"

namespace panthera {
namespace {

using Json = nlohmann::ordered_json;

// Longer than any value that a message should show.
constexpr size_t kMostValueLetters = 60;
// Deeper than any config.json; printing takes stack for each level.
constexpr int kMostLevels = 64;

// The keys that give fields of ModelOptions.
struct FieldKey {
  std::string_view field;
  const char* key;
};
constexpr FieldKey kFieldKeys[] = {
    {"vocab_size", "vocab_size"},           {"width", "hidden_size"},
    {"layers", "num_hidden_layers"},        {"heads", "num_attention_heads"},
    {"kv_heads", "num_key_value_heads"},    {"head_width", "head_dim"},
    {"ffn_width", "intermediate_size"},     {"sequence_length", "max_position_embeddings"},
    {"attention_window", "sliding_window"}, {"rope_base", "rope_theta"},
    {"norm_epsilon", "rms_norm_eps"},
};

// Discarded if the text is no JSON, or is too deep.
Json ParseJson(const std::string& text) {
  bool is_deep = false;
  const auto watch = [&is_deep](int depth, Json::parse_event_t, const Json&) {
    is_deep = is_deep || depth > kMostLevels;
    return depth <= kMostLevels;
  };
  Json json = Json::parse(text, watch, /*allow_exceptions=*/false);
  return is_deep ? Json(Json::value_t::discarded) : json;
}

std::string Shown(const Json& value) {
  const std::string text = OneLine(value.dump(-1, ' ', false, Json::error_handler_t::replace));
  return text.size() <= kMostValueLetters ? text : text.substr(0, kMostValueLetters) + "...";
}

// Finds the first field that is out of its range.
class RangeChecker final : public FieldVisitor {
 public:
  absl::Status TakeError() { return std::move(error_); }

  void Int(const FieldInfo& info, int64_t& value, IntRange range) override {
    if (value < range.min || value > range.max) {
      Report(info, absl::StrFormat("%d is out of range (%d to %d)", value, range.min, range.max));
    }
  }
  void Real(const FieldInfo& info, double& value, RealRange range) override {
    if (!(value >= range.min && value <= range.max)) {
      Report(info, absl::StrFormat("%g is out of range (%g to %g)", value, range.min, range.max));
    }
  }
  void Text(const FieldInfo&, std::string&) override {}
  void Choice(const FieldInfo&, std::span<const char* const>, size_t&) override {}
  size_t BeginRecords(const FieldInfo&, size_t count) override { return count; }
  void BeginRecord(size_t) override {}
  void EndRecord() override {}
  void EndRecords() override {}

 private:
  void Report(const FieldInfo& info, const std::string& why) {
    if (!error_.ok()) {
      return;
    }
    for (const FieldKey& entry : kFieldKeys) {
      if (entry.field == info.name) {
        error_ = absl::InvalidArgumentError(absl::StrCat(entry.key, " = ", why));
        return;
      }
    }
    CHECK(false) << info.name << " has a value of its own";
  }

  absl::Status error_;
};

// The reader of one config.json. The first error stays; what is read after it does not matter.
class ConfigReader {
 public:
  explicit ConfigReader(const Json& json) : json_(json) {}

  absl::StatusOr<ModelOptions> Read() {
    ReadFamily();
    RefuseUnsupported();
    ReadSizes();
    ReadRotary();
    RETURN_IF_ERROR(error_);
    RangeChecker ranges;
    options_.VisitFields(ranges);
    RETURN_IF_ERROR(ranges.TakeError());
    if (const absl::Status finished = options_.Finish(); !finished.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("as [model] of Panthera it is not valid: ", finished.message()));
    }
    return options_;
  }

 private:
  void Fail(const std::string& why) {
    if (error_.ok()) {
      error_ = absl::InvalidArgumentError(why);
    }
  }

  // Null if the key is absent or null.
  static const Json* FindIn(const Json& object, const char* key) {
    const auto entry = object.find(key);
    return entry == object.end() || entry->is_null() ? nullptr : &*entry;
  }
  const Json* Find(const char* key) const { return FindIn(json_, key); }

  std::optional<int64_t> Integer(const char* key) {
    const Json* value = Find(key);
    if (value == nullptr) {
      return std::nullopt;
    }
    if (const auto* integer = value->get_ptr<const Json::number_integer_t*>()) {
      return *integer;
    }
    Fail(absl::StrCat(key, " = ", Shown(*value), " is not a whole number"));
    return std::nullopt;
  }
  int64_t RequiredInteger(const char* key) {
    const std::optional<int64_t> value = Integer(key);
    if (!value.has_value()) {
      Fail(absl::StrCat("the key ", key,
                        " is missing; add it with the value that the model was made with"));
    }
    return value.value_or(0);
  }
  double RealIn(const Json& object, const char* key, double otherwise) {
    const Json* value = FindIn(object, key);
    if (value == nullptr) {
      return otherwise;
    }
    if (!value->is_number()) {
      Fail(absl::StrCat(key, " = ", Shown(*value), " is not a number"));
      return otherwise;
    }
    return value->get<double>();
  }
  std::string Text(const char* key, const std::string& otherwise) {
    const Json* value = Find(key);
    const auto* text = value == nullptr ? nullptr : value->get_ptr<const std::string*>();
    if (value != nullptr && text == nullptr) {
      Fail(absl::StrCat(key, " = ", Shown(*value), " is not a text"));
    }
    return text == nullptr ? otherwise : *text;
  }

  void ReadFamily() {
    std::string family = Text("model_type", "");
    const Json* architectures = Find("architectures");
    if (family.empty() && architectures != nullptr) {
      family = *architectures == Json::array({"LlamaForCausalLM"})     ? "llama"
               : *architectures == Json::array({"MistralForCausalLM"}) ? "mistral"
                                                                       : Shown(*architectures);
    }
    if (family != "llama" && family != "mistral") {
      Fail(absl::StrCat("model_type = ", Shown(family),
                        " is not supported; supported are \"llama\" and \"mistral\""));
    }
    is_mistral_ = family == "mistral";
  }

  // Keys that must be absent, null or have one of these values.
  void Expect(const char* key, std::initializer_list<Json> values) {
    const Json* value = Find(key);
    if (value == nullptr) {
      return;
    }
    std::vector<std::string> supported;
    for (const Json& allowed : values) {
      if (*value == allowed) {
        return;
      }
      supported.push_back(Shown(allowed));
    }
    supported.emplace_back("null");
    Fail(absl::StrCat(key, " = ", Shown(*value), " is not supported; supported are ",
                      absl::StrJoin(supported, " and ")));
  }

  void RefuseUnsupported() {
    Expect("hidden_act", {"silu", "swish"});
    Expect("attention_bias", {false});
    Expect("mlp_bias", {false});
    Expect("attention_dropout", {0});
    Expect("partial_rotary_factor", {1});
    Expect("quantization_config", {});
  }

  void ReadSizes() {
    options_.vocab_size = RequiredInteger("vocab_size");
    options_.width = RequiredInteger("hidden_size");
    options_.layers = RequiredInteger("num_hidden_layers");
    options_.heads = RequiredInteger("num_attention_heads");
    options_.ffn_width = RequiredInteger("intermediate_size");
    options_.sequence_length = RequiredInteger("max_position_embeddings");
    // A Mistral without these keys has 8 heads and a window of 4096, whatever its size.
    options_.kv_heads = is_mistral_ ? RequiredInteger("num_key_value_heads")
                                    : Integer("num_key_value_heads").value_or(options_.heads);
    options_.head_width = Integer("head_dim").value_or(0);
    if (is_mistral_) {
      if (!json_.contains("sliding_window")) {
        Fail("the key sliding_window is missing; add it, with null if there is no window");
      }
      options_.attention_window = Integer("sliding_window").value_or(0);
    }
    options_.norm_epsilon = RealIn(json_, "rms_norm_eps", 1e-6);
    if (const Json* tied = Find("tie_word_embeddings"); tied != nullptr) {
      if (!tied->is_boolean()) {
        Fail(absl::StrCat("tie_word_embeddings = ", Shown(*tied), " is not true or false"));
        return;
      }
      options_.tie = *tied == true ? Tie::kTied : Tie::kNone;
    }
  }

  // The base stands at the top, or since transformers 5 in rope_parameters; either object may say
  // that the positions are scaled.
  void ReadRotary() {
    options_.rope_base = RealIn(json_, "rope_theta", 10000);
    for (const char* key : {"rope_scaling", "rope_parameters"}) {
      const Json* rotary = Find(key);
      if (rotary == nullptr) {
        continue;
      }
      if (!rotary->is_object()) {
        Fail(absl::StrCat(key, " = ", Shown(*rotary), " is not an object"));
        return;
      }
      for (const char* type_key : {"rope_type", "type"}) {
        const Json* type = FindIn(*rotary, type_key);
        if (type != nullptr && *type != "default") {
          Fail(absl::StrCat(key, " of type ", Shown(*type),
                            " is not supported; supported are null and \"default\""));
        }
      }
      if (RealIn(*rotary, "partial_rotary_factor", 1) != 1) {
        Fail(absl::StrCat(key, ".partial_rotary_factor is not supported; supported is 1"));
      }
      options_.rope_base = RealIn(*rotary, "rope_theta", options_.rope_base);
    }
  }

  const Json& json_;
  bool is_mistral_ = false;
  ModelOptions options_;
  absl::Status error_;
};

}  // namespace

const char* TorchTypeName(DType dtype) {
  CHECK(dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16) << dtype;
  return dtype == DType::kF32 ? "float32" : dtype == DType::kBF16 ? "bfloat16" : "float16";
}

absl::StatusOr<ModelOptions> ParseHuggingFaceConfig(const std::string& text,
                                                    const std::string& path) {
  const Json json = ParseJson(text);
  if (!json.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " is not a JSON object; give the config.json of a Llama model"));
  }
  absl::StatusOr<ModelOptions> options = ConfigReader(json).Read();
  if (!options.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", options.status().message()));
  }
  return options;
}

std::string WithWeightType(const std::string& text, DType weights) {
  Json json = ParseJson(text);
  CHECK(json.is_object()) << "a config.json that was not checked";
  // The name of the key since transformers 5.
  json[json.contains("dtype") ? "dtype" : "torch_dtype"] = TorchTypeName(weights);
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace panthera
