// The SentencePiece library behind plain types. Its headers declare an absl::string_view of their
// own and so cannot meet Abseil's in one source file; therefore errors are strings here.
#ifndef PANTHERA_RUNTIME_DATA_SENTENCEPIECE_MODEL_H_
#define PANTHERA_RUNTIME_DATA_SENTENCEPIECE_MODEL_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace panthera {

class SentencePieceModel {
 public:
  // Null, with a message in `error`, if the bytes are not a model.
  static std::unique_ptr<SentencePieceModel> FromBytes(const std::string& bytes,
                                                       std::string& error);
  virtual ~SentencePieceModel() = default;

  virtual int32_t vocab_size() const = 0;
  // -1 if the model has none.
  virtual int32_t eos_id() const = 0;
  virtual int32_t bos_id() const = 0;
  virtual int32_t unk_id() const = 0;
  // The text of a piece, with U+2581 for a space.
  virtual const std::string& Piece(int32_t id) const = 0;
  // The id of the byte piece "<0xNN>", or -1.
  virtual int32_t BytePiece(unsigned char byte) const = 0;

  // Appends to `ids`. Safe to call from several threads. `text` is valid UTF-8.
  virtual void Encode(std::string_view text, std::vector<int32_t>& ids) const = 0;
  virtual std::string Decode(const std::vector<int32_t>& ids) const = 0;
};

// Trains on sentences until `next` returns false. `flags` are spm_train's, without dashes. Returns
// the serialized model, or an empty string with a message in `error`.
std::string TrainSentencePieceModel(const std::vector<std::pair<std::string, std::string>>& flags,
                                    const std::function<bool(std::string&)>& next,
                                    std::string& error);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_DATA_SENTENCEPIECE_MODEL_H_
