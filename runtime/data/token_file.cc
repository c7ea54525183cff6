#include "runtime/data/token_file.h"

#include <xxhash.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <limits>
#include <system_error>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "runtime/base/check.h"
#include "runtime/base/parallel_for.h"
#include "runtime/base/shape.h"
#include "runtime/base/status_macros.h"

namespace panthera {
namespace {

constexpr char kIndexMagic[9] = {'M', 'M', 'I', 'D', 'I', 'D', 'X', '\0', '\0'};
constexpr uint64_t kIndexVersion = 1;
constexpr int64_t kIndexHeaderBytes = 34;
constexpr uint8_t kIndexTypeInt32 = 4;
constexpr uint8_t kIndexTypeUint16 = 8;

constexpr int64_t kLlmCHeaderBytes = 1024;
constexpr int32_t kLlmCMagicUint16 = 20240520;
constexpr int32_t kLlmCVersionUint16 = 1;
constexpr int32_t kLlmCMagicUint32 = 20240801;
constexpr int32_t kLlmCVersionUint32 = 7;

constexpr char kMakeItAgain[] = "; copy it again, or make it again with `panthera tokenize`";

// Numbers in an index lie at odd addresses.
template <typename T>
T Load(const std::byte* address) {
  T value;
  std::memcpy(&value, address, sizeof(T));
  return value;
}

bool IsFile(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(path, ignored);
}

std::string WithoutEnding(const std::string& path) { return path.substr(0, path.size() - 4); }

// The smallest index in [0, count) for which `wrong` holds, or count. Looks on all threads.
int64_t FirstWrong(int64_t count, absl::FunctionRef<bool(int64_t)> wrong) {
  constexpr int64_t kGrain = 1 << 16;
  std::atomic<int64_t> first{count};
  ParallelFor(count, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (wrong(i)) {
        int64_t known = first.load();
        while (i < known && !first.compare_exchange_weak(known, i)) {
        }
        return;
      }
    }
  });
  return first.load();
}

}  // namespace

int64_t SizeOf(TokenType type) { return type == TokenType::kUint16 ? 2 : 4; }

absl::StatusOr<TokenFile> TokenFile::Open(const std::string& path) {
  if (!IsFile(path)) {
    if (IsFile(path + ".idx") || IsFile(path + ".bin")) {
      return OpenMegatron(path);
    }
    if (std::error_code ignored; std::filesystem::is_directory(path, ignored)) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, " is a directory; name a token file in it, or all of them as \"", path, "/*\""));
    }
    return absl::NotFoundError(
        absl::StrCat("no token file found: looked for ", path, ", ", path, ".idx and ", path,
                     ".bin; correct the path, or make the file with `panthera tokenize`"));
  }
  if (absl::EndsWith(path, ".idx")) {
    return OpenMegatron(WithoutEnding(path));
  }
  // The ids of a pair may begin with any bytes, so an index beside the file decides.
  if (absl::EndsWith(path, ".bin") && IsFile(WithoutEnding(path) + ".idx")) {
    return OpenMegatron(WithoutEnding(path));
  }
  ASSIGN_OR_RETURN(MappedFile content, MappedFile::Open(path));
  return OpenLlmC(path, std::move(content));
}

absl::StatusOr<TokenFile> TokenFile::OpenLlmC(const std::string& path, MappedFile content) {
  const int32_t magic = content.size() >= 4 ? Load<int32_t>(content.data()) : 0;
  if (magic != kLlmCMagicUint16 && magic != kLlmCMagicUint32) {
    const std::string stem = absl::EndsWith(path, ".bin") ? WithoutEnding(path) : path;
    return absl::InvalidArgumentError(
        absl::StrCat(path, " is not a token file: it does not begin with llm.c's magic number (",
                     kLlmCMagicUint16, " or ", kLlmCMagicUint32, "), and there is no ", stem,
                     ".idx that would make it part of a Megatron pair; make token files of text "
                     "with `panthera tokenize`"));
  }
  if (content.size() < kLlmCHeaderBytes) {
    return absl::DataLossError(absl::StrCat(path, " is cut short: ", content.size(),
                                            " bytes, but an llm.c header has ", kLlmCHeaderBytes,
                                            kMakeItAgain));
  }
  const int32_t version = Load<int32_t>(content.data() + 4);
  const int32_t expected = magic == kLlmCMagicUint16 ? kLlmCVersionUint16 : kLlmCVersionUint32;
  if (version != expected) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, " has version ", version, "; with magic number ", magic, " only version ", expected,
        " can be read: convert it, or tokenize the text with `panthera tokenize`"));
  }
  TokenFile file;
  file.path_ = path;
  file.type_ = magic == kLlmCMagicUint16 ? TokenType::kUint16 : TokenType::kInt32;
  file.header_bytes_ = kLlmCHeaderBytes;
  file.tokens_ = Load<int32_t>(content.data() + 8);
  const int64_t needed = kLlmCHeaderBytes + file.tokens_ * SizeOf(file.type_);
  if (file.tokens_ < 0 || needed != content.size()) {
    return absl::DataLossError(absl::StrCat(path, " is damaged: its header says ", file.tokens_,
                                            " tokens, which makes ", needed, " bytes, but it has ",
                                            content.size(), kMakeItAgain));
  }
  file.documents_ = 1;
  file.content_ = std::move(content);
  return file;
}

absl::StatusOr<TokenFile> TokenFile::OpenMegatron(const std::string& stem) {
  const std::string index_path = stem + ".idx";
  TokenFile file;
  file.path_ = stem + ".bin";
  for (const std::string& part : {index_path, file.path_}) {
    if (!IsFile(part)) {
      return absl::NotFoundError(absl::StrCat("the Megatron pair ", stem, " is incomplete: ", part,
                                              " is missing", kMakeItAgain));
    }
  }
  ASSIGN_OR_RETURN(file.index_, MappedFile::Open(index_path));
  ASSIGN_OR_RETURN(file.content_, MappedFile::Open(file.path_));
  RETURN_IF_ERROR(file.ReadIndexHeader(index_path));
  RETURN_IF_ERROR(file.CheckSequences(index_path));
  RETURN_IF_ERROR(file.CheckDocuments(index_path));
  file.index_.Release(0, file.index_.size());
  return file;
}

absl::Status TokenFile::ReadIndexHeader(const std::string& index_path) {
  const std::byte* index = index_.data();
  if (index_.size() < kIndexHeaderBytes) {
    return absl::DataLossError(absl::StrCat(index_path, " is cut short: ", index_.size(),
                                            " bytes, but its header has ", kIndexHeaderBytes,
                                            kMakeItAgain));
  }
  if (std::memcmp(index, kIndexMagic, sizeof(kIndexMagic)) != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        index_path, " is not a Megatron index: it does not begin with MMIDIDX", kMakeItAgain));
  }
  if (const auto version = Load<uint64_t>(index + 9); version != kIndexVersion) {
    return absl::InvalidArgumentError(
        absl::StrCat(index_path, " has version ", version, "; only version ", kIndexVersion,
                     " can be read: convert it, or tokenize the text with `panthera tokenize`"));
  }
  const auto type = Load<uint8_t>(index + 17);
  if (type != kIndexTypeInt32 && type != kIndexTypeUint16) {
    return absl::InvalidArgumentError(absl::StrCat(index_path, " has type code ", type, "; only ",
                                                   kIndexTypeUint16, " (uint16) and ",
                                                   kIndexTypeInt32,
                                                   " (int32) can be read: convert "
                                                   "it, or tokenize the text with `panthera "
                                                   "tokenize`"));
  }
  type_ = type == kIndexTypeUint16 ? TokenType::kUint16 : TokenType::kInt32;

  const auto sequences = Load<uint64_t>(index + 18);
  const auto boundaries = Load<uint64_t>(index + 26);
  const auto size = static_cast<uint64_t>(index_.size());
  // Counts beyond the file's size are refused before they are multiplied.
  const bool plausible = sequences <= size && boundaries <= size;
  const uint64_t needed = kIndexHeaderBytes + 12 * sequences + 8 * boundaries;
  if (!plausible || (size != needed && size != needed + sequences)) {
    return absl::DataLossError(absl::StrCat(
        index_path, " is damaged: its header says ", sequences, " sequences and ", boundaries,
        " document boundaries, which does not fit its ", size, " bytes", kMakeItAgain));
  }
  if (boundaries == 0) {
    return absl::DataLossError(
        absl::StrCat(index_path, " has no document boundaries", kMakeItAgain));
  }
  sequences_ = static_cast<int64_t>(sequences);
  documents_ = static_cast<int64_t>(boundaries) - 1;
  tokens_ = content_.size() / SizeOf(type_);
  return absl::OkStatus();
}

absl::Status TokenFile::CheckSequences(const std::string& index_path) const {
  // Sequence i must begin where i - 1 ended; then all of them are one run of ids.
  const auto end_of = [&](int64_t i) {
    return SequenceOffset(i) + int64_t{SequenceLength(i)} * SizeOf(type_);
  };
  const int64_t wrong = FirstWrong(sequences_, [&](int64_t i) {
    const int64_t offset = SequenceOffset(i);
    return SequenceLength(i) < 0 || offset < 0 || offset > content_.size() ||
           offset != (i == 0 ? 0 : end_of(i - 1));
  });
  if (wrong < sequences_) {
    return absl::DataLossError(
        absl::StrCat(index_path, " is damaged: sequence ", wrong, " has ", SequenceLength(wrong),
                     " tokens at byte ", SequenceOffset(wrong),
                     wrong == 0 ? ", but the first one begins" : ", but the one before ends",
                     " at byte ", wrong == 0 ? 0 : end_of(wrong - 1), kMakeItAgain));
  }
  const int64_t end = sequences_ == 0 ? 0 : end_of(sequences_ - 1);
  if (end != content_.size()) {
    return absl::DataLossError(
        absl::StrCat(path_, " has ", content_.size(), " bytes, but ", index_path, " describes ",
                     end, ": they do not belong together or one is cut short", kMakeItAgain));
  }
  return absl::OkStatus();
}

absl::Status TokenFile::CheckDocuments(const std::string& index_path) const {
  const int64_t wrong = FirstWrong(documents_ + 1, [&](int64_t d) {
    return Boundary(d) < (d == 0 ? 0 : Boundary(d - 1)) || (d == 0 && Boundary(0) != 0) ||
           Boundary(d) > sequences_ || (d == documents_ && Boundary(d) != sequences_);
  });
  if (wrong <= documents_) {
    return absl::DataLossError(
        absl::StrCat(index_path, " is damaged: document boundary ", wrong, " is ", Boundary(wrong),
                     ", but boundaries must rise from 0 to the number of sequences, ", sequences_,
                     kMakeItAgain));
  }
  return absl::OkStatus();
}

int32_t TokenFile::SequenceLength(int64_t sequence) const {
  return Load<int32_t>(index_.data() + kIndexHeaderBytes + 4 * sequence);
}

int64_t TokenFile::SequenceOffset(int64_t sequence) const {
  return Load<int64_t>(index_.data() + kIndexHeaderBytes + 4 * sequences_ + 8 * sequence);
}

int64_t TokenFile::Boundary(int64_t document) const {
  return Load<int64_t>(index_.data() + kIndexHeaderBytes + 12 * sequences_ + 8 * document);
}

int64_t TokenFile::DocumentBegin(int64_t document) const {
  CHECK_GE(document, 0);
  CHECK_LE(document, documents_);
  if (document == documents_) {
    return tokens_;
  }
  if (index_.data() == nullptr) {
    return 0;
  }
  const int64_t sequence = Boundary(document);
  return sequence == sequences_ ? tokens_ : SequenceOffset(sequence) / SizeOf(type_);
}

void TokenFile::Read(int64_t begin, int64_t count, int32_t* out) const {
  CHECK_GE(begin, 0);
  CHECK_GE(count, 0);
  CHECK_LE(count, tokens_ - begin);
  const std::byte* ids = IdAddress(begin);
  if (type_ == TokenType::kUint16) {
    for (int64_t i = 0; i < count; ++i) {
      out[i] = Load<uint16_t>(ids + 2 * i);
    }
  } else if (count > 0) {
    std::memcpy(out, ids, static_cast<size_t>(4 * count));
  }
}

void TokenFile::WillNeed(int64_t begin, int64_t count) const {
  CHECK_GE(begin, 0);
  CHECK_GE(count, 0);
  CHECK_LE(count, tokens_ - begin);
  content_.WillNeed(header_bytes_ + begin * SizeOf(type_),
                    header_bytes_ + (begin + count) * SizeOf(type_));
}

void TokenFile::Release(int64_t begin, int64_t count) const {
  CHECK_GE(begin, 0);
  CHECK_GE(count, 0);
  CHECK_LE(count, tokens_ - begin);
  content_.Release(header_bytes_ + begin * SizeOf(type_),
                   header_bytes_ + (begin + count) * SizeOf(type_));
}

uint64_t TokenFile::Fingerprint() const {
  constexpr int64_t kBlocks = 16;
  constexpr int64_t kBlockIds = 8192;
  // Each part's hash is the seed of the next.
  uint64_t hash = 0;
  const auto add = [&hash](const void* data, int64_t bytes) {
    hash = XXH64(data, static_cast<size_t>(bytes), hash);
  };
  const int64_t facts[] = {SizeOf(type_), tokens_, index_.size()};
  add(facts, sizeof(facts));
  add(index_.data(), index_.size());
  index_.Release(0, index_.size());
  const int64_t count = std::min(kBlockIds, tokens_);
  int64_t end_of_last = 0;
  for (int64_t block = 0; block < kBlocks; ++block) {
    const int64_t begin = std::max((tokens_ - count) / (kBlocks - 1) * block, end_of_last);
    const int64_t end = block == kBlocks - 1 ? tokens_ : std::min(begin + count, tokens_);
    add(IdAddress(begin), (end - begin) * SizeOf(type_));
    Release(begin, end - begin);
    end_of_last = end;
  }
  return hash;
}

int32_t TokenFile::At(int64_t position) const {
  int32_t id;
  Read(position, 1, &id);
  return id;
}

template <typename Id>
int64_t TokenFile::FirstOutside(int64_t begin, int64_t end, uint32_t vocab_size) const {
  const std::byte* ids = IdAddress(begin);
  const int64_t count = end - begin;
  // The largest id first, as that loop vectorizes.
  Id largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    largest = std::max(largest, Load<Id>(ids + i * int64_t{sizeof(Id)}));
  }
  if (largest < vocab_size) {
    return end;
  }
  int64_t i = 0;
  while (Load<Id>(ids + i * int64_t{sizeof(Id)}) < vocab_size) {
    ++i;
  }
  return begin + i;
}

absl::Status TokenFile::CheckVocabulary(int64_t vocab_size) const {
  CHECK_GE(vocab_size, 1);
  CHECK_LE(vocab_size, std::numeric_limits<int32_t>::max());
  if (type_ == TokenType::kUint16 && vocab_size > std::numeric_limits<uint16_t>::max()) {
    return absl::OkStatus();
  }
  constexpr int64_t kBlock = 1 << 22;
  const int64_t blocks = CeilDiv(tokens_, kBlock);
  const auto limit = static_cast<uint32_t>(vocab_size);
  std::atomic<int64_t> first{tokens_};
  ParallelFor(blocks, 1, [&](int64_t begin_block, int64_t end_block) {
    for (int64_t block = begin_block; block < end_block; ++block) {
      const int64_t begin = block * kBlock;
      const int64_t end = std::min(begin + kBlock, tokens_);
      if (begin >= first.load()) {
        return;
      }
      // A negative int32 is a huge uint32 and so outside as well.
      const int64_t found = type_ == TokenType::kUint16 ? FirstOutside<uint16_t>(begin, end, limit)
                                                        : FirstOutside<uint32_t>(begin, end, limit);
      content_.Release(header_bytes_ + begin * SizeOf(type_), header_bytes_ + end * SizeOf(type_));
      if (found < end) {
        int64_t known = first.load();
        while (found < known && !first.compare_exchange_weak(known, found)) {
        }
        return;
      }
    }
  });
  const int64_t position = first.load();
  if (position < tokens_) {
    return absl::OutOfRangeError(absl::StrCat(
        path_, " has id ", At(position), " at token ", position, ", outside the vocabulary of ",
        vocab_size,
        "; give a file of the model's own tokenizer, or set model.vocab_size to that of "
        "the tokenizer that wrote this one"));
  }
  return absl::OkStatus();
}

}  // namespace panthera
