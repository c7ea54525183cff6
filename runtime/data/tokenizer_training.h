#ifndef PANTHERA_RUNTIME_DATA_TOKENIZER_TRAINING_H_
#define PANTHERA_RUNTIME_DATA_TOKENIZER_TRAINING_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

#include "runtime/data/document_reader.h"
#include "runtime/data/tokenizer.h"

namespace panthera {

struct TokenizerTrainingOptions {
  // Only the training part of the documents is used.
  DocumentOptions documents;
  int64_t vocab_size = 4096;
  // Lines are drawn, the same ones every time, until about this many bytes; bounds memory and time.
  int64_t sample_bytes = int64_t{64} << 20;
};

// Trains a SentencePiece byte-pair encoding that behaves like Llama's: unk 0, bos 1, eos 2, then
// 256 byte pieces that spell whatever no piece covers, digits one by one, and no normalization.
// Unlike Llama's it puts no space before a text, so texts can be cut and joined; runs of spaces
// form pieces; line ends and other control characters are byte pieces. Returns the content of the
// model file, the same for the same inputs.
//
// Errors: those of DocumentReader, a vocabulary that is too small for the byte pieces, or one that
// is too large for the text (the message says how many pieces the text yields).
absl::StatusOr<std::string> TrainSentencePiece(const TokenizerTrainingOptions& options);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_DATA_TOKENIZER_TRAINING_H_
