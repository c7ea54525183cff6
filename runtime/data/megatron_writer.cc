#include "runtime/data/megatron_writer.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"

#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"

namespace panthera {
namespace {

constexpr int64_t kFirstWideVocabulary = 65500;

template <typename T>
absl::Status AppendValue(DurableFile& file, T value) {
  return file.Append(&value, sizeof(T));
}

}  // namespace

absl::StatusOr<MegatronWriter> MegatronWriter::Create(const std::string& stem, int64_t vocab_size) {
  CHECK_GE(vocab_size, 1);
  CHECK_LE(vocab_size, std::numeric_limits<int32_t>::max());
  ASSIGN_OR_RETURN(DurableFile content, DurableFile::Create(stem + ".bin"));
  // Beside the output, as /tmp may be small. It has no name from here on, so nothing can leave it
  // behind.
  const std::string lengths_path = stem + ".lengths.partial";
  std::unique_ptr<std::FILE, CloseFile> lengths(std::fopen(lengths_path.c_str(), "w+be"));
  if (lengths == nullptr) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot create ", lengths_path));
  }
  unlink(lengths_path.c_str());
  return MegatronWriter(stem, vocab_size, std::move(content), std::move(lengths));
}

MegatronWriter::MegatronWriter(std::string stem, int64_t vocab_size, DurableFile content,
                               std::unique_ptr<std::FILE, CloseFile> lengths)
    : stem_(std::move(stem)),
      vocab_size_(vocab_size),
      type_(vocab_size < kFirstWideVocabulary ? TokenType::kUint16 : TokenType::kInt32),
      content_(std::move(content)),
      lengths_(std::move(lengths)),
      max_sequence_(std::numeric_limits<int32_t>::max()) {}

absl::Status MegatronWriter::Append(std::span<const int32_t> ids) {
  for (const int32_t id : ids) {
    CHECK_GE(id, 0);
    CHECK_LT(id, vocab_size_);
  }
  if (type_ == TokenType::kUint16) {
    narrow_.assign(ids.begin(), ids.end());
    RETURN_IF_ERROR(content_.Append(narrow_.data(), static_cast<int64_t>(2 * narrow_.size())));
  } else {
    RETURN_IF_ERROR(content_.Append(ids.data(), static_cast<int64_t>(4 * ids.size())));
  }
  auto left = static_cast<int64_t>(ids.size());
  tokens_ += left;
  document_open_ = true;
  while (left > 0) {
    if (sequence_tokens_ == max_sequence_) {
      RETURN_IF_ERROR(EndSequence(~sequence_tokens_));
    }
    const int64_t taken = std::min<int64_t>(left, max_sequence_ - sequence_tokens_);
    sequence_tokens_ += static_cast<int32_t>(taken);
    left -= taken;
  }
  return absl::OkStatus();
}

absl::Status MegatronWriter::EndDocument() {
  RETURN_IF_ERROR(EndSequence(sequence_tokens_));
  ++documents_;
  document_open_ = false;
  return absl::OkStatus();
}

absl::Status MegatronWriter::EndSequence(int32_t entry) {
  if (std::fwrite(&entry, sizeof(entry), 1, lengths_.get()) != 1) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot write the sequence lengths of ", stem_));
  }
  ++sequences_;
  sequence_tokens_ = 0;
  return absl::OkStatus();
}

template <typename Write>
absl::Status MegatronWriter::ForEachEntry(Write write) {
  std::rewind(lengths_.get());
  for (int64_t sequence = 0; sequence < sequences_; ++sequence) {
    int32_t entry = 0;
    if (std::fread(&entry, sizeof(entry), 1, lengths_.get()) != 1) {
      return absl::DataLossError(
          absl::StrCat("cannot read the sequence lengths of ", stem_, " back: is the disk full?"));
    }
    const bool ends_document = entry >= 0;
    RETURN_IF_ERROR(write(sequence, ends_document ? entry : ~entry, ends_document));
  }
  return absl::OkStatus();
}

absl::Status MegatronWriter::WriteIndex(DurableFile& index) {
  RETURN_IF_ERROR(index.Append("MMIDIDX\0\0", 9));
  RETURN_IF_ERROR(AppendValue<uint64_t>(index, 1));
  RETURN_IF_ERROR(AppendValue<uint8_t>(index, type_ == TokenType::kUint16 ? 8 : 4));
  RETURN_IF_ERROR(AppendValue(index, static_cast<uint64_t>(sequences_)));
  RETURN_IF_ERROR(AppendValue(index, static_cast<uint64_t>(documents_ + 1)));
  RETURN_IF_ERROR(ForEachEntry(
      [&](int64_t, int32_t length, bool) { return AppendValue<int32_t>(index, length); }));
  int64_t offset = 0;
  RETURN_IF_ERROR(ForEachEntry([&](int64_t, int32_t length, bool) {
    const int64_t begin = offset;
    offset += int64_t{length} * SizeOf(type_);
    return AppendValue<int64_t>(index, begin);
  }));
  RETURN_IF_ERROR(AppendValue<int64_t>(index, 0));
  return ForEachEntry([&](int64_t sequence, int32_t, bool ends_document) {
    return ends_document ? AppendValue<int64_t>(index, sequence + 1) : absl::OkStatus();
  });
}

absl::Status MegatronWriter::Publish() {
  if (document_open_) {
    RETURN_IF_ERROR(EndDocument());
  }
  const std::string index_path = stem_ + ".idx";
  ASSIGN_OR_RETURN(DurableFile index, DurableFile::Create(index_path));
  RETURN_IF_ERROR(WriteIndex(index));
  if (unlink(index_path.c_str()) != 0 && errno != ENOENT) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot replace ", index_path));
  }
  RETURN_IF_ERROR(content_.Publish());
  return index.Publish();
}

}  // namespace panthera
