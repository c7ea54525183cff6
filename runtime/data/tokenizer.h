#ifndef PANTHERA_RUNTIME_DATA_TOKENIZER_H_
#define PANTHERA_RUNTIME_DATA_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace panthera {

// What a text that is encoded follows.
enum class TextStart : uint8_t {
  // Nothing: some models put a space before the first word of a document.
  kDocument,
  // Text of the same document: nothing is put before it.
  kContinuation,
};

// Places where a text can be cut so that the ids of the parts, one after the other, are the ids of
// the whole.
struct CutRules {
  bool after_newline = false;
  // Before a space that follows something else, or before the first of several spaces.
  bool before_spaces = false;
};

// Text <-> ids. Thread-safe.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // "bytes", or the path of the model.
  virtual std::string name() const = 0;
  // Equal for equal encodings: kind, vocabulary size, and a hash of the model's bytes.
  virtual std::string fingerprint() const = 0;
  // Ids lie in [0, vocab_size()).
  virtual int64_t vocab_size() const = 0;
  // The id that ends every document in a token file.
  virtual int32_t eos_id() const = 0;
  virtual CutRules cut_rules() const = 0;
  // The bytes of the model file; empty if there is none.
  virtual const std::string& model_bytes() const = 0;

  // Appends the ids of `text`, valid UTF-8, to `ids`. Never the id that ends a document, whatever
  // the text says.
  virtual void Encode(std::string_view text, TextStart start, std::vector<int32_t>& ids) const = 0;
  // The text of ids in [0, vocab_size()); special ids give nothing. Bytes that do not form a
  // character come out as U+FFFD for a SentencePiece model and as they are for "bytes".
  virtual std::string Decode(const std::vector<int32_t>& ids) const = 0;

  // The ids of a whole document, without the one that ends it.
  std::vector<int32_t> Encode(std::string_view text) const {
    std::vector<int32_t> ids;
    Encode(text, TextStart::kDocument, ids);
    return ids;
  }
};

// "bytes": the 256 byte values are their own ids and 256 ends a document. Anything else is the path
// of a SentencePiece model, which must have an end-of-sentence id.
//
// With a model that TrainSentencePiece wrote, Decode(Encode(x)) == x for every valid UTF-8 text x.
// To that end U+2581, the character that SentencePiece uses for a space, is encoded byte by byte;
// the library itself, and transformers, would read it as a space.
absl::StatusOr<std::unique_ptr<Tokenizer>> OpenTokenizer(const std::string& name);

// The tokenizer of a model file's content; `name` is for messages.
absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerFromBytes(const std::string& name,
                                                              std::string model_bytes);

// A file's name and contents.
struct TokenizerFile {
  std::string name;
  std::string contents;
};

// tokenizer.model, tokenizer_config.json and special_tokens_map.json: beside a model's config.json
// they let AutoTokenizer of transformers open the directory and give the same ids, except of text
// that holds U+2581 or, literally, a special token such as </s>, and, if the model puts a space
// before every text, of text that begins with a space: transformers then puts none. Empty for byte
// ids, which have no counterpart among the tokenizer classes of transformers.
std::vector<TokenizerFile> HuggingFaceTokenizerFiles(const Tokenizer& tokenizer);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_DATA_TOKENIZER_H_
