#include "runtime/data/sentencepiece_model.h"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <array>
#include <unordered_map>

namespace panthera {
namespace {

class LoadedModel : public SentencePieceModel {
 public:
  // Returns the error, or an empty string.
  std::string Load(const std::string& bytes) {
    const sentencepiece::util::Status status = processor_.LoadFromSerializedProto(bytes);
    if (!status.ok()) {
      return status.ToString();
    }
    byte_pieces_.fill(-1);
    for (unsigned byte = 0; byte < byte_pieces_.size(); ++byte) {
      constexpr char kDigits[] = "0123456789ABCDEF";
      const std::string name = {'<', '0', 'x', kDigits[byte / 16], kDigits[byte % 16], '>'};
      const int id = processor_.PieceToId(name);
      if (processor_.IsByte(id)) {
        byte_pieces_[byte] = id;
      }
    }
    return "";
  }

  int32_t vocab_size() const override { return processor_.GetPieceSize(); }
  int32_t eos_id() const override { return processor_.eos_id(); }
  int32_t bos_id() const override { return processor_.bos_id(); }
  int32_t unk_id() const override { return processor_.unk_id(); }
  const std::string& Piece(int32_t id) const override { return processor_.IdToPiece(id); }
  int32_t BytePiece(unsigned char byte) const override { return byte_pieces_[byte]; }

  void Encode(std::string_view text, std::vector<int32_t>& ids) const override {
    const std::vector<int> encoded = processor_.EncodeAsIds(text);
    ids.insert(ids.end(), encoded.begin(), encoded.end());
  }

  std::string Decode(const std::vector<int32_t>& ids) const override {
    return processor_.DecodeIds(ids);
  }

 private:
  sentencepiece::SentencePieceProcessor processor_;
  std::array<int32_t, 256> byte_pieces_;
};

class Sentences : public sentencepiece::SentenceIterator {
 public:
  explicit Sentences(const std::function<bool(std::string&)>& next) : next_(next) { Next(); }

  bool done() const override { return done_; }
  void Next() override { done_ = !next_(sentence_); }
  const std::string& value() const override { return sentence_; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  const std::function<bool(std::string&)>& next_;
  std::string sentence_;
  bool done_ = false;
};

}  // namespace

std::unique_ptr<SentencePieceModel> SentencePieceModel::FromBytes(const std::string& bytes,
                                                                  std::string& error) {
  auto model = std::make_unique<LoadedModel>();
  error = model->Load(bytes);
  if (!error.empty()) {
    return nullptr;
  }
  return model;
}

std::string TrainSentencePieceModel(const std::vector<std::pair<std::string, std::string>>& flags,
                                    const std::function<bool(std::string&)>& next,
                                    std::string& error) {
  Sentences sentences(next);
  std::string model;
  const sentencepiece::util::Status status = sentencepiece::SentencePieceTrainer::Train(
      std::unordered_map<std::string, std::string>(flags.begin(), flags.end()), &sentences, &model);
  if (!status.ok()) {
    error = status.ToString();
    return "";
  }
  return model;
}

}  // namespace panthera
