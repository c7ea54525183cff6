#include "runtime/data/document_reader.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include <nlohmann/json.hpp>

#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"
#include "runtime/data/utf8.h"

namespace panthera {
namespace {

constexpr size_t kPieceBytes = 1 << 20;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

bool IsJsonLines(const std::string& path, TextFormat format) {
  return format == TextFormat::kJsonLines ||
         (format == TextFormat::kAuto &&
          (absl::EndsWith(path, ".jsonl") || absl::EndsWith(path, ".ndjson")));
}

bool StartsWith(std::string_view text, std::string_view start) {
  return text.substr(0, start.size()) == start;
}

// Where a piece ends when nothing in the text ends it. `limit` bytes of the window may be used.
size_t PlainCut(std::string_view window, size_t limit) {
  const std::string_view usable = window.substr(0, limit);
  if (const size_t newline = usable.rfind('\n'); newline != std::string_view::npos) {
    return newline + 1;
  }
  if (const size_t space = usable.rfind(' '); space != std::string_view::npos && space > 0) {
    return space;
  }
  const size_t boundary = CharacterBoundary(window, limit);
  return boundary > 0 ? boundary : limit;
}

}  // namespace

absl::StatusOr<DocumentReader> DocumentReader::Open(DocumentOptions options) {
  CHECK_GE(options.validation_fraction, 0);
  CHECK_LT(options.validation_fraction, 1);
  DocumentReader reader(std::move(options));
  for (const std::string& input : reader.options_.inputs) {
    std::error_code error;
    if (!std::filesystem::exists(input, error)) {
      return absl::NotFoundError(
          absl::StrCat("there is no input file ", input, "; check the path"));
    }
    if (!std::filesystem::is_regular_file(input, error)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the input ", input, " is not a regular file; name files, as in ", input, "/*.txt"));
    }
    reader.sizes_.push_back(static_cast<int64_t>(std::filesystem::file_size(input, error)));
    reader.bytes_total_ += reader.sizes_.back();
  }
  return reader;
}

absl::StatusOr<bool> DocumentReader::Next(DocumentPiece& piece) {
  while (true) {
    if (file_ == nullptr) {
      if (next_file_ == options_.inputs.size()) {
        return false;
      }
      RETURN_IF_ERROR(OpenFile());
    }
    ASSIGN_OR_RETURN(const bool found, json_lines_ ? NextJsonLine(piece) : NextText(piece));
    if (found) {
      return true;
    }
    file_.reset();
  }
}

absl::Status DocumentReader::OpenFile() {
  const std::string& path = options_.inputs[next_file_];
  file_.reset(std::fopen(path.c_str(), "rbe"));
  if (file_ == nullptr) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  }
  json_lines_ = IsJsonLines(path, options_.format);
  const int64_t size = sizes_[next_file_];
  const bool splits_tail =
      options_.validation_fraction > 0 && !json_lines_ && options_.separator.empty();
  validation_offset_ =
      splits_tail ? std::llround(static_cast<double>(size) * (1 - options_.validation_fraction))
                  : -1;
  ++next_file_;
  end_of_file_ = false;
  buffer_.clear();
  window_begin_ = 0;
  window_offset_ = 0;
  line_ = 0;
  in_document_ = false;
  in_validation_tail_ = false;

  RETURN_IF_ERROR(Fill(4));
  if (StartsWith(window(), "\x1F\x8B") || StartsWith(window(), "\x28\xB5\x2F\xFD")) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " is a packed file; unpack it with gunzip or unzstd first"));
  }
  if (StartsWith(window(), kByteOrderMark)) {
    Consume(kByteOrderMark.size());
  }
  return absl::OkStatus();
}

absl::Status DocumentReader::Fill(size_t bytes) {
  while (window().size() < bytes && !end_of_file_) {
    buffer_.erase(0, window_begin_);
    window_begin_ = 0;
    const size_t old_size = buffer_.size();
    const size_t wanted = std::max(bytes - old_size, kPieceBytes);
    buffer_.resize(old_size + wanted);
    const size_t got = std::fread(buffer_.data() + old_size, 1, wanted, file_.get());
    buffer_.resize(old_size + got);
    if (got < wanted) {
      if (std::ferror(file_.get()) != 0) {
        return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", Place(old_size)));
      }
      end_of_file_ = true;
    }
  }
  return absl::OkStatus();
}

void DocumentReader::Consume(size_t bytes) {
  window_begin_ += bytes;
  window_offset_ += static_cast<int64_t>(bytes);
  bytes_read_ += static_cast<int64_t>(bytes);
}

std::string DocumentReader::Place(size_t offset_in_window) const {
  return absl::StrCat(options_.inputs[next_file_ - 1], " at byte ",
                      window_offset_ + static_cast<int64_t>(offset_in_window));
}

CorpusPart DocumentReader::PartOfDocument() const {
  if (in_validation_tail_) {
    return CorpusPart::kValidation;
  }
  if (validation_offset_ >= 0 || options_.validation_fraction == 0) {
    return CorpusPart::kTraining;
  }
  // Of d documents, d * fraction, rounded, are due; the one with which that number grows is taken.
  const auto due = [&](int64_t documents) {
    return std::floor(static_cast<double>(documents) * options_.validation_fraction + 0.5);
  };
  return due(documents_ + 1) > due(documents_) ? CorpusPart::kValidation : CorpusPart::kTraining;
}

absl::Status DocumentReader::CheckText(std::string_view text, std::string& result) const {
  const size_t valid = ValidUtf8Prefix(text);
  if (valid == text.size()) {
    result.assign(text);
    return absl::OkStatus();
  }
  if (options_.invalid_utf8 == InvalidUtf8::kReplace) {
    result = ReplaceInvalidUtf8(text);
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      Place(static_cast<size_t>(text.data() - window().data()) + valid),
      " is not valid UTF-8; convert the file (iconv), or pass --invalid-utf8 replace"));
}

DocumentReader::Cut DocumentReader::FindCut() const {
  const std::string_view text = window();
  const std::string& separator = options_.separator;
  if (!separator.empty()) {
    const size_t found = text.find(separator);
    if (found != std::string_view::npos) {
      return {found, found + separator.size(), true, false};
    }
  }
  const int64_t tail = validation_offset_ - window_offset_;
  const auto window_size = static_cast<int64_t>(text.size());
  // A tail further ahead is left for a later window, in which the end of its line is in sight.
  const int64_t reach = end_of_file_ ? window_size : static_cast<int64_t>(kPieceBytes);
  if (validation_offset_ >= 0 && !in_validation_tail_ && tail < reach) {
    const auto target = static_cast<size_t>(std::max<int64_t>(0, tail));
    // A line that begins exactly at the target counts, so the search starts one byte before it.
    const size_t newline = text.find('\n', target > 0 ? target - 1 : 0);
    const bool line_follows =
        newline != std::string_view::npos && !(end_of_file_ && newline + 1 == text.size());
    const size_t end = line_follows ? newline + 1 : CharacterBoundary(text, target);
    return {end, end, true, true};
  }
  if (end_of_file_) {
    return {text.size(), text.size(), true, false};
  }
  // The window holds more than a piece and a separator, so none is cut in two.
  const size_t end = PlainCut(text, kPieceBytes);
  return {end, end, false, false};
}

absl::StatusOr<bool> DocumentReader::NextText(DocumentPiece& piece) {
  while (true) {
    RETURN_IF_ERROR(Fill(2 * kPieceBytes + options_.separator.size()));
    if (window().empty() && !in_document_) {
      return false;
    }
    const Cut cut = FindCut();
    RETURN_IF_ERROR(CheckText(window().substr(0, cut.text_end), piece.text));
    Consume(cut.next_begin);
    piece.begins_document = !in_document_;
    piece.ends_document = cut.ends_document;
    piece.part = PartOfDocument();
    const bool has_text = in_document_ || !piece.text.empty();
    in_document_ = has_text && !cut.ends_document;
    in_validation_tail_ = in_validation_tail_ || cut.begins_validation;
    if (has_text) {
      documents_ += cut.ends_document ? 1 : 0;
      return true;
    }
  }
}

absl::StatusOr<bool> DocumentReader::NextJsonLine(DocumentPiece& piece) {
  while (true) {
    RETURN_IF_ERROR(Fill(kPieceBytes));
    size_t end = window().find('\n');
    while (end == std::string_view::npos && !end_of_file_) {
      const size_t searched = window().size();
      RETURN_IF_ERROR(Fill(2 * searched));
      end = window().find('\n', searched);
    }
    if (window().empty()) {
      return false;
    }
    const std::string_view line = window().substr(0, end);
    ++line_;
    const std::string where = absl::StrCat(options_.inputs[next_file_ - 1], " line ", line_);
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) {
      Consume(std::min(line.size() + 1, window().size()));
      continue;
    }
    std::string checked;
    RETURN_IF_ERROR(CheckText(line, checked));
    Consume(std::min(line.size() + 1, window().size()));
    const nlohmann::json record = nlohmann::json::parse(checked, nullptr, false);
    if (record.is_discarded() || !record.is_object()) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, " is not a JSON object; write one per line, or pass --format text"));
    }
    const auto field = record.find(options_.json_key);
    if (field == record.end() || !field->is_string()) {
      return absl::InvalidArgumentError(absl::StrCat(where, " has no text under \"",
                                                     options_.json_key,
                                                     "\"; name the field that holds it with "
                                                     "--json-key"));
    }
    piece.text = field->get<std::string>();
    if (piece.text.empty()) {
      continue;
    }
    piece.begins_document = true;
    piece.ends_document = true;
    piece.part = PartOfDocument();
    ++documents_;
    return true;
  }
}

}  // namespace panthera
