#ifndef PANTHERA_RUNTIME_DATA_MEGATRON_WRITER_H_
#define PANTHERA_RUNTIME_DATA_MEGATRON_WRITER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "runtime/data/durable_file.h"
#include "runtime/data/token_file.h"

namespace panthera {

// Writes a Megatron pair (see token_file.h) document by document, in constant memory: sequence
// lengths wait in a temporary file until the index is written. Ids are stored as uint16 if the
// vocabulary is smaller than 65,500, else as int32, which is Megatron's own rule. A document longer
// than an int32 length can say becomes several sequences.
class MegatronWriter {
 public:
  static absl::StatusOr<MegatronWriter> Create(const std::string& stem, int64_t vocab_size);

  // Appends ids, each in [0, vocab_size), to the current document.
  absl::Status Append(std::span<const int32_t> ids);
  // Ends the current document. One without ids becomes an empty document.
  absl::Status EndDocument();
  // Ends an open document, and makes STEM.bin and then STEM.idx appear. An older index goes first,
  // so at no time does one file describe the other wrongly.
  absl::Status Publish();

  int64_t tokens() const { return tokens_; }
  int64_t documents() const { return documents_; }

  // The longest sequence, in tokens. Settable so that tests need not write 2^31 tokens.
  void set_max_sequence(int32_t tokens) { max_sequence_ = tokens; }

 private:
  struct CloseFile {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };

  MegatronWriter(std::string stem, int64_t vocab_size, DurableFile content,
                 std::unique_ptr<std::FILE, CloseFile> lengths);

  // A length as it waits in the temporary file: ~length when the document goes on after it.
  absl::Status EndSequence(int32_t entry);
  absl::Status WriteIndex(DurableFile& index);
  template <typename Write>
  absl::Status ForEachEntry(Write write);

  std::string stem_;
  int64_t vocab_size_;
  TokenType type_;
  DurableFile content_;
  std::unique_ptr<std::FILE, CloseFile> lengths_;
  std::vector<uint16_t> narrow_;
  int32_t max_sequence_;
  int32_t sequence_tokens_ = 0;
  bool document_open_ = false;
  int64_t sequences_ = 0;
  int64_t documents_ = 0;
  int64_t tokens_ = 0;
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_DATA_MEGATRON_WRITER_H_
