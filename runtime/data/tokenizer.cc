#include "runtime/data/tokenizer.h"

#include <xxhash.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include <nlohmann/json.hpp>

#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"
#include "runtime/data/mapped_file.h"
#include "runtime/data/sentencepiece_model.h"

namespace panthera {
namespace {

class ByteTokenizer : public Tokenizer {
 public:
  static constexpr int32_t kEndOfDocument = 256;

  std::string name() const override { return "bytes"; }
  std::string fingerprint() const override { return "bytes"; }
  int64_t vocab_size() const override { return kEndOfDocument + 1; }
  int32_t eos_id() const override { return kEndOfDocument; }
  CutRules cut_rules() const override { return {.after_newline = true, .before_spaces = true}; }
  const std::string& model_bytes() const override { return no_model_; }

  void Encode(std::string_view text, TextStart, std::vector<int32_t>& ids) const override {
    const size_t old_size = ids.size();
    ids.resize(old_size + text.size());
    std::transform(text.begin(), text.end(), ids.begin() + static_cast<std::ptrdiff_t>(old_size),
                   [](char c) { return static_cast<unsigned char>(c); });
  }

  std::string Decode(const std::vector<int32_t>& ids) const override {
    std::string text;
    for (const int32_t id : ids) {
      CHECK_GE(id, 0);
      CHECK_LE(id, kEndOfDocument);
      if (id < kEndOfDocument) {
        text.push_back(static_cast<char>(id));
      }
    }
    return text;
  }

 private:
  std::string no_model_;
};

constexpr char kNameAModel[] = "; name a SentencePiece model file, or \"bytes\"";

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";

bool Contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

class SentencePieceTokenizer : public Tokenizer {
 public:
  SentencePieceTokenizer(std::string name, std::string bytes,
                         std::unique_ptr<SentencePieceModel> model)
      : name_(std::move(name)), bytes_(std::move(bytes)), model_(std::move(model)) {
    FindCutRules();
    model_->Encode("\n", newline_at_start_);
    for (const char byte : kSpaceMark) {
      space_mark_ids_.push_back(model_->BytePiece(static_cast<unsigned char>(byte)));
    }
    encodes_space_mark_ = std::count(space_mark_ids_.begin(), space_mark_ids_.end(), -1) == 0;
  }

  std::string name() const override { return name_; }
  std::string fingerprint() const override {
    const uint64_t hash = XXH3_64bits(bytes_.data(), bytes_.size());
    return absl::StrCat("sentencepiece-", vocab_size(), "-", absl::Hex(hash, absl::kZeroPad16));
  }
  int64_t vocab_size() const override { return model_->vocab_size(); }
  int32_t eos_id() const override { return model_->eos_id(); }
  CutRules cut_rules() const override { return cut_rules_; }
  const std::string& model_bytes() const override { return bytes_; }

  void Encode(std::string_view text, TextStart start, std::vector<int32_t>& ids) const override {
    while (encodes_space_mark_ && Contains(text, kSpaceMark)) {
      const size_t position = text.find(kSpaceMark);
      EncodePart(text.substr(0, position), start, ids);
      ids.insert(ids.end(), space_mark_ids_.begin(), space_mark_ids_.end());
      text.remove_prefix(position + kSpaceMark.size());
      start = TextStart::kContinuation;
    }
    EncodePart(text, start, ids);
  }

  std::string Decode(const std::vector<int32_t>& ids) const override { return model_->Decode(ids); }

 private:
  // A model that puts a space before a text puts it before a newline, too. So a continuation is
  // encoded behind a newline, whose ids are known and taken off again.
  void EncodePart(std::string_view text, TextStart start, std::vector<int32_t>& ids) const {
    if (text.empty()) {
      return;
    }
    if (start == TextStart::kDocument || !adds_prefix_) {
      model_->Encode(text, ids);
      return;
    }
    std::vector<int32_t> with_newline;
    std::string behind_newline = "\n";
    behind_newline.append(text);
    model_->Encode(behind_newline, with_newline);
    const size_t prefix = newline_at_start_.size();
    if (with_newline.size() < prefix ||
        !std::equal(newline_at_start_.begin(), newline_at_start_.end(), with_newline.begin())) {
      model_->Encode(text, ids);
      return;
    }
    ids.insert(ids.end(), with_newline.begin() + static_cast<std::ptrdiff_t>(prefix),
               with_newline.end());
  }

  void FindCutRules() {
    cut_rules_ = {.after_newline = true, .before_spaces = true};
    for (int32_t id = 0; id < model_->vocab_size(); ++id) {
      const std::string& piece = model_->Piece(id);
      if (piece.size() > 1 && Contains(piece, "\n")) {
        cut_rules_.after_newline = false;
      }
      // Past the leading spaces, a space would be in the middle of the piece or at its end.
      std::string_view rest = piece;
      while (rest.substr(0, kSpaceMark.size()) == kSpaceMark) {
        rest.remove_prefix(kSpaceMark.size());
      }
      if (Contains(rest, kSpaceMark)) {
        cut_rules_.before_spaces = false;
      }
    }
    // A model that normalizes white space away would treat the parts otherwise than the whole.
    const std::string spaces = "a  b \n ";
    std::vector<int32_t> ids;
    model_->Encode(spaces, ids);
    if (model_->Decode(ids) != spaces) {
      cut_rules_ = {};
    }
    std::vector<int32_t> letter;
    model_->Encode("a", letter);
    adds_prefix_ = !letter.empty() && model_->Piece(letter[0]).substr(0, 3) == kSpaceMark;
  }

  std::string name_;
  std::string bytes_;
  std::unique_ptr<SentencePieceModel> model_;
  CutRules cut_rules_;
  bool adds_prefix_ = false;
  bool encodes_space_mark_ = false;
  std::vector<int32_t> newline_at_start_;
  std::vector<int32_t> space_mark_ids_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> OpenTokenizer(const std::string& name) {
  if (name == "bytes") {
    return std::make_unique<ByteTokenizer>();
  }
  if (name.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("no tokenizer is given", kNameAModel));
  }
  const absl::StatusOr<MappedFile> file = MappedFile::Open(name);
  if (!file.ok()) {
    return absl::Status(file.status().code(),
                        absl::StrCat("tokenizer: ", file.status().message(), kNameAModel));
  }
  return TokenizerFromBytes(name, std::string(reinterpret_cast<const char*>(file->data()),
                                              static_cast<size_t>(file->size())));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerFromBytes(const std::string& name,
                                                              std::string model_bytes) {
  std::string error;
  std::unique_ptr<SentencePieceModel> model = SentencePieceModel::FromBytes(model_bytes, error);
  if (model == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tokenizer: ", name, " is not a SentencePiece model, or it is damaged", kNameAModel));
  }
  if (model->eos_id() < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        name, " has no end-of-sentence id, which ends documents; train it with --eos_id"));
  }
  return std::make_unique<SentencePieceTokenizer>(name, std::move(model_bytes), std::move(model));
}

std::vector<TokenizerFile> HuggingFaceTokenizerFiles(const Tokenizer& tokenizer) {
  if (tokenizer.model_bytes().empty()) {
    return {};
  }
  std::string error;
  const auto model = SentencePieceModel::FromBytes(tokenizer.model_bytes(), error);
  CHECK(model != nullptr) << error;
  std::vector<int32_t> letter;
  model->Encode("a", letter);
  const bool adds_prefix =
      !letter.empty() && model->Piece(letter[0]).substr(0, kSpaceMark.size()) == kSpaceMark;

  nlohmann::json special;
  const auto add_special = [&](const char* key, int32_t id) {
    if (id >= 0) {
      special[key] = model->Piece(id);
    }
  };
  add_special("bos_token", model->bos_id());
  add_special("eos_token", model->eos_id());
  add_special("unk_token", model->unk_id());

  nlohmann::json config = special;
  config["tokenizer_class"] = "LlamaTokenizer";
  // Token files have no id before a document, so a model never saw one.
  config["add_bos_token"] = false;
  config["add_eos_token"] = false;
  config["add_prefix_space"] = adds_prefix;
  config["legacy"] = false;
  config["clean_up_tokenization_spaces"] = false;

  return {{"tokenizer.model", tokenizer.model_bytes()},
          {"special_tokens_map.json", special.dump(2) + "\n"},
          {"tokenizer_config.json", config.dump(2) + "\n"}};
}

}  // namespace panthera
