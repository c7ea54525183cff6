// Files of token ids that other trainers write, read in place. All are little-endian.
//
// * Megatron pair: STEM.bin holds nothing but ids, uint16 or int32; STEM.idx says how they form
//   sequences and documents: "MMIDIDX\0\0", u64 version 1, u8 type code (8 uint16, 4 int32),
//   u64 sequences S, u64 boundaries D, int32[S] lengths in tokens, int64[S] byte offsets into
//   STEM.bin, int64[D] document boundaries as indices of sequences (first 0, last S), and for
//   multimodal data int8[S] modes, which are not used here.
//   (github.com/NVIDIA/Megatron-LM, megatron/core/datasets/indexed_dataset.py)
// * llm.c file: 256 int32 of header {magic, version, ids, ...}, then the ids: magic 20240520
//   version 1 holds uint16, magic 20240801 version 7 holds uint32. One document, as the file does
//   not say where documents end. (github.com/karpathy/llm.c, dev/data/data_common.py)
#ifndef PANTHERA_RUNTIME_DATA_TOKEN_FILE_H_
#define PANTHERA_RUNTIME_DATA_TOKEN_FILE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "runtime/data/mapped_file.h"

namespace panthera {

// How an id lies in the file.
enum class TokenType : uint8_t { kUint16, kInt32 };
enum class TokenFormat : uint8_t { kMegatron, kLlmC };
int64_t SizeOf(TokenType type);

// The ids of one file (pair) as one sequence, mapped into memory. Safe to read from several
// threads.
class TokenFile {
 public:
  // `path` names an llm.c file, one file of a Megatron pair, or the pair's stem. The content
  // decides, not the ending. Checks everything that can be checked without reading the ids; errors
  // name the file and what does not fit.
  static absl::StatusOr<TokenFile> Open(const std::string& path);

  // The file that holds the ids.
  const std::string& path() const { return path_; }
  TokenFormat format() const {
    return header_bytes_ == 0 ? TokenFormat::kMegatron : TokenFormat::kLlmC;
  }
  TokenType type() const { return type_; }
  int64_t tokens() const { return tokens_; }
  int64_t documents() const { return documents_; }
  // The position of the first id of `document` in [0, documents()]; the last one gives tokens().
  int64_t DocumentBegin(int64_t document) const;

  // Writes ids [begin, begin + count) to `out`. A uint32 id of 2^31 or more comes out negative.
  void Read(int64_t begin, int64_t count, int32_t* out) const;
  // Starts reading these ids from disk and does not wait.
  void WillNeed(int64_t begin, int64_t count) const;
  // Takes these ids, which have been read, out of the process's memory: MappedFile::Release.
  void Release(int64_t begin, int64_t count) const;

  // Tells files of other contents apart without reading all of them: XXH64 (xxHash specification)
  // over the type, the number of ids, the whole index, and the ids in up to 16 blocks at equal
  // distances, the first and the last among them. Another tokenizer, another corpus or another
  // order of documents shows; single ids that were replaced in place may not.
  uint64_t Fingerprint() const;

  // An error that names the first id outside [0, vocab_size) and its position. Reads the whole file
  // on all threads, without keeping it in memory, unless the type rules such ids out.
  absl::Status CheckVocabulary(int64_t vocab_size) const;

 private:
  static absl::StatusOr<TokenFile> OpenMegatron(const std::string& stem);
  static absl::StatusOr<TokenFile> OpenLlmC(const std::string& path, MappedFile content);
  absl::Status ReadIndexHeader(const std::string& index_path);
  absl::Status CheckSequences(const std::string& index_path) const;
  absl::Status CheckDocuments(const std::string& index_path) const;

  template <typename Id>
  int64_t FirstOutside(int64_t begin, int64_t end, uint32_t vocab_size) const;
  int32_t At(int64_t position) const;
  const std::byte* IdAddress(int64_t position) const {
    return content_.data() + header_bytes_ + position * SizeOf(type_);
  }
  int32_t SequenceLength(int64_t sequence) const;
  int64_t SequenceOffset(int64_t sequence) const;
  int64_t Boundary(int64_t document) const;

  std::string path_;
  MappedFile content_;
  MappedFile index_;
  TokenType type_ = TokenType::kUint16;
  int64_t header_bytes_ = 0;
  int64_t tokens_ = 0;
  int64_t documents_ = 0;
  int64_t sequences_ = 0;
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_DATA_TOKEN_FILE_H_
