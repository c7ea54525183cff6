#include "runtime/data/text_encoder.h"

#include "absl/strings/string_view.h"

namespace panthera {
namespace {

constexpr size_t kLongestRememberedWord = 48;
constexpr size_t kMaxRememberedWords = 1 << 19;

}  // namespace

size_t TextEncoder::WordLength(std::string_view text) const {
  size_t end = 0;
  while (end < text.size() && text[end] == ' ') {
    ++end;
  }
  while (end < text.size() && text[end] != ' ') {
    ++end;
    if (cuts_.after_newline && text[end - 1] == '\n') {
      break;
    }
  }
  return end;
}

void TextEncoder::Encode(std::string_view text, TextStart start, std::vector<int32_t>& ids) {
  if (!cuts_.before_spaces || tokenizer_.model_bytes().empty()) {
    tokenizer_.Encode(text, start, ids);
    return;
  }
  if (start == TextStart::kDocument) {
    const size_t length = WordLength(text);
    tokenizer_.Encode(text.substr(0, length), start, ids);
    text.remove_prefix(length);
  }
  while (!text.empty()) {
    const size_t length = WordLength(text);
    EncodeWord(text.substr(0, length), ids);
    text.remove_prefix(length);
  }
}

void TextEncoder::EncodeWord(std::string_view word, std::vector<int32_t>& ids) {
  if (word.size() > kLongestRememberedWord) {
    tokenizer_.Encode(word, TextStart::kContinuation, ids);
    return;
  }
  const auto known = words_.find(absl::string_view(word.data(), word.size()));
  if (known != words_.end()) {
    const auto [begin, end] = known->second;
    ids.insert(ids.end(), word_ids_.begin() + begin, word_ids_.begin() + end);
    return;
  }
  if (words_.size() >= kMaxRememberedWords) {
    words_.clear();
    word_ids_.clear();
  }
  const auto begin = static_cast<uint32_t>(word_ids_.size());
  tokenizer_.Encode(word, TextStart::kContinuation, word_ids_);
  const auto end = static_cast<uint32_t>(word_ids_.size());
  words_.emplace(std::string(word), std::make_pair(begin, end));
  ids.insert(ids.end(), word_ids_.begin() + begin, word_ids_.end());
}

}  // namespace panthera
