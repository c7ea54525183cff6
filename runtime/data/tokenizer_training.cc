#include "runtime/data/tokenizer_training.h"

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "runtime/base/check.h"
#include "runtime/base/philox.h"
#include "runtime/base/status_macros.h"
#include "runtime/data/sentencepiece_model.h"
#include "runtime/data/utf8.h"

namespace panthera {
namespace {

// unk, bos, eos and the bytes; below twice that there is hardly room for pieces.
constexpr int64_t kReservedPieces = 3 + 256;
constexpr int64_t kMinVocabulary = 2 * kReservedPieces;
constexpr size_t kLongestSentence = 4000;
constexpr uint64_t kLineSampleKey = 0x4C494E4553ULL;
// Llama's share of characters that get a piece of their own.
constexpr double kCharacterCoverage = 0.99995;

using CharacterSet = absl::flat_hash_set<std::string>;

// Sentences drawn from the lines of the training documents.
class SentenceSample {
 public:
  absl::Status Draw(const TokenizerTrainingOptions& options) {
    ASSIGN_OR_RETURN(DocumentReader reader, DocumentReader::Open(options.documents));
    if (reader.bytes_total() > options.sample_bytes) {
      probability_ =
          static_cast<double>(options.sample_bytes) / static_cast<double>(reader.bytes_total());
    }
    DocumentPiece piece;
    while (true) {
      ASSIGN_OR_RETURN(const bool found, reader.Next(piece));
      if (!found) {
        return absl::OkStatus();
      }
      if (piece.part == CorpusPart::kTraining) {
        AddText(piece.text);
      }
    }
  }

  const std::vector<std::string>& sentences() const { return sentences_; }

 private:
  void AddText(std::string_view text) {
    while (!text.empty()) {
      const size_t line = std::min(text.find('\n'), text.size());
      const size_t end = std::min(line, CharacterBoundary(text, kLongestSentence));
      const double draw =
          UnitFloat(Philox4x32(kLineSampleKey, static_cast<uint64_t>(seen_++), 0).value[0]);
      if (end > 0 && draw < probability_) {
        sentences_.emplace_back(text.substr(0, end));
      }
      const bool ends_line = end < text.size() && text[end] == '\n';
      text.remove_prefix(end + (ends_line ? 1 : 0));
    }
  }

  double probability_ = 1;
  int64_t seen_ = 0;
  std::vector<std::string> sentences_;
};

// The length of the character at the start of valid UTF-8.
size_t FirstCharacter(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text[0]);
  return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

// No piece shall contain a control character or one of the two that SentencePiece reserves.
bool IsReserved(const std::string& character) {
  return static_cast<unsigned char>(character[0]) < 0x20 || character == "\xE2\x96\x81" ||
         character == "\xE2\x96\x85";
}

// The characters that get a piece of their own: the most frequent ones that make up
// kCharacterCoverage of the text, but no more than half of the pieces. In a script with thousands
// of characters they would otherwise leave no room.
CharacterSet FrequentCharacters(const std::vector<std::string>& sentences, int64_t pieces) {
  absl::flat_hash_map<std::string, int64_t> counts;
  int64_t total = 0;
  for (std::string_view rest : sentences) {
    while (!rest.empty()) {
      const size_t length = FirstCharacter(rest);
      if (const std::string character(rest.substr(0, length)); !IsReserved(character)) {
        ++counts[character];
        ++total;
      }
      rest.remove_prefix(length);
    }
  }
  std::vector<std::pair<std::string, int64_t>> ordered(counts.begin(), counts.end());
  std::sort(ordered.begin(), ordered.end(), [](const auto& a, const auto& b) {
    return std::pair(-a.second, a.first) < std::pair(-b.second, b.first);
  });
  CharacterSet frequent;
  int64_t covered = 0;
  for (const auto& [character, count] : ordered) {
    if (static_cast<int64_t>(frequent.size()) == pieces / 2 ||
        static_cast<double>(covered) >= kCharacterCoverage * static_cast<double>(total)) {
      break;
    }
    frequent.insert(character);
    covered += count;
  }
  return frequent;
}

// The next run of frequent characters, taken off the front of `rest`; empty if there is none.
std::string_view TakeFrequentRun(const CharacterSet& frequent, std::string_view& rest) {
  size_t begin = 0;
  size_t end = 0;
  while (end < rest.size()) {
    const size_t length = FirstCharacter(rest.substr(end));
    const bool wanted = frequent.contains(absl::string_view(rest.data() + end, length));
    if (!wanted && end > begin) {
      break;
    }
    end += length;
    begin = wanted ? begin : end;
  }
  const std::string_view run = rest.substr(begin, end - begin);
  rest.remove_prefix(end);
  return run;
}

}  // namespace

absl::StatusOr<std::string> TrainSentencePiece(const TokenizerTrainingOptions& options) {
  if (options.vocab_size < kMinVocabulary) {
    return absl::InvalidArgumentError(absl::StrCat("a vocabulary of ", options.vocab_size,
                                                   " is too small to train: 256 pieces "
                                                   "are bytes, so at least ",
                                                   kMinVocabulary, " are needed"));
  }
  SentenceSample sample;
  RETURN_IF_ERROR(sample.Draw(options));
  if (sample.sentences().empty()) {
    return absl::InvalidArgumentError("there is no text to train a tokenizer on");
  }
  const CharacterSet frequent =
      FrequentCharacters(sample.sentences(), options.vocab_size - kReservedPieces);
  const std::vector<std::pair<std::string, std::string>> flags = {
      {"model_type", "bpe"},
      {"vocab_size", absl::StrCat(options.vocab_size)},
      {"hard_vocab_limit", "false"},
      // Rare characters are taken out here.
      {"character_coverage", "1.0"},
      {"byte_fallback", "true"},
      {"split_digits", "true"},
      {"normalization_rule_name", "identity"},
      {"remove_extra_whitespaces", "false"},
      {"allow_whitespace_only_pieces", "true"},
      {"add_dummy_prefix", "false"},
      {"unk_id", "0"},
      {"bos_id", "1"},
      {"eos_id", "2"},
      {"pad_id", "-1"},
      {"max_sentence_length", absl::StrCat(2 * kLongestSentence)},
      {"minloglevel", "2"},
  };
  size_t next = 0;
  std::string_view rest;
  std::string error;
  std::string model = TrainSentencePieceModel(
      flags,
      [&](std::string& sentence) {
        sentence.clear();
        while (sentence.empty() && (!rest.empty() || next < sample.sentences().size())) {
          rest = rest.empty() ? std::string_view(sample.sentences()[next++]) : rest;
          sentence = TakeFrequentRun(frequent, rest);
        }
        return !sentence.empty();
      },
      error);
  if (model.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("SentencePiece could not train: ", error));
  }
  const auto trained = SentencePieceModel::FromBytes(model, error);
  CHECK(trained != nullptr) << error;
  if (trained->vocab_size() != options.vocab_size) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the text yields only ", trained->vocab_size(), " pieces, not ", options.vocab_size,
        "; give --vocab-size ", trained->vocab_size(), " at most, or more text"));
  }
  return model;
}

}  // namespace panthera
