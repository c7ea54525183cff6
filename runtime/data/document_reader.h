#ifndef PANTHERA_RUNTIME_DATA_DOCUMENT_READER_H_
#define PANTHERA_RUNTIME_DATA_DOCUMENT_READER_H_

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace panthera {

enum class TextFormat : uint8_t {
  // kJsonLines for files whose name ends in .jsonl or .ndjson, else kText.
  kAuto,
  kText,
  kJsonLines,
};

enum class InvalidUtf8 : uint8_t {
  // An error that names file and byte.
  kReject,
  // U+FFFD for every byte that is not part of a character.
  kReplace,
};

enum class CorpusPart : uint8_t { kTraining, kValidation };

struct DocumentOptions {
  std::vector<std::string> inputs = {};
  TextFormat format = TextFormat::kAuto;
  // The field of a JSON line that holds the text.
  std::string json_key = "text";
  // Text files only: splits a file into documents and belongs to none of them. Empty: a file is one
  // document.
  std::string separator = {};
  InvalidUtf8 invalid_utf8 = InvalidUtf8::kReject;
  // In [0, 1). The part of the input that is set aside for validation: every n-th document where
  // lines or separators make documents; otherwise the end of every text file, from the first line
  // that begins in its last `validation_fraction` of bytes, as a document of its own.
  double validation_fraction = 0;
};

// A document, or a part of a long one. The parts in their order make the document.
struct DocumentPiece {
  std::string text;
  CorpusPart part = CorpusPart::kTraining;
  bool begins_document = false;
  bool ends_document = false;
};

// Reads documents from files one after the other, in constant memory: a long document comes in
// pieces of about 1 MiB, cut after a newline (in text without newlines before a space, and without
// spaces between characters). Only a JSON line is held as a whole. Documents without text are left
// out, a byte order mark at the start of a file is dropped, everything else is kept as it is.
class DocumentReader {
 public:
  // Errors name an input that is missing, not a regular file, or packed by gzip or zstd.
  static absl::StatusOr<DocumentReader> Open(DocumentOptions options);

  // The next piece, or false when there is none. Errors: invalid UTF-8, a line that is no JSON
  // object with a string under json_key, each with file and place.
  absl::StatusOr<bool> Next(DocumentPiece& piece);

  // Bytes of input read and in all, for progress.
  int64_t bytes_read() const { return bytes_read_; }
  int64_t bytes_total() const { return bytes_total_; }

 private:
  struct CloseFile {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  // Where the next piece ends in window(), and what ends there.
  struct Cut {
    size_t text_end;
    // Behind a separator.
    size_t next_begin;
    bool ends_document;
    bool begins_validation;
  };

  explicit DocumentReader(DocumentOptions options) : options_(std::move(options)) {}

  absl::Status OpenFile();
  // Reads on until window() has `bytes` or the file ends.
  absl::Status Fill(size_t bytes);
  std::string_view window() const { return std::string_view(buffer_).substr(window_begin_); }
  void Consume(size_t bytes);
  std::string Place(size_t offset_in_window) const;

  absl::StatusOr<bool> NextText(DocumentPiece& piece);
  Cut FindCut() const;
  absl::StatusOr<bool> NextJsonLine(DocumentPiece& piece);
  absl::Status CheckText(std::string_view text, std::string& result) const;
  CorpusPart PartOfDocument() const;

  DocumentOptions options_;
  std::vector<int64_t> sizes_;
  int64_t bytes_total_ = 0;
  int64_t bytes_read_ = 0;

  size_t next_file_ = 0;
  std::unique_ptr<std::FILE, CloseFile> file_;
  bool end_of_file_ = false;
  bool json_lines_ = false;
  // Bytes of the file that are not yet consumed: buffer_[window_begin_...), which is the file from
  // window_offset_ on.
  std::string buffer_;
  size_t window_begin_ = 0;
  int64_t window_offset_ = 0;
  int64_t line_ = 0;
  // Where validation begins in this text file, or -1.
  int64_t validation_offset_ = -1;

  // Non-empty documents so far, and the state of the current one.
  int64_t documents_ = 0;
  bool in_document_ = false;
  bool in_validation_tail_ = false;
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_DATA_DOCUMENT_READER_H_
