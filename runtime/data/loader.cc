#include "runtime/data/loader.h"

#include <algorithm>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"

#include "runtime/base/check.h"
#include "runtime/base/shape.h"
#include "runtime/base/status_macros.h"

namespace panthera {
namespace {

struct Place {
  const TokenSource* source;
  // In [0, SamplesIn(source)).
  int64_t sample;
};

absl::StatusOr<std::vector<TokenSource>> OpenSources(std::span<const DataSource> records,
                                                     const SampleFormat& format) {
  CHECK_GE(format.sequence_length, 1);
  CHECK_GE(format.vocab_size, 1);
  if (records.empty()) {
    return absl::InvalidArgumentError("no token files are given");
  }
  std::vector<TokenSource> sources;
  for (const DataSource& record : records) {
    ASSIGN_OR_RETURN(TokenSource source, TokenSource::Open(record.path));
    if (SamplesIn(source, format.sequence_length) == 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          record.path, " has ", source.tokens(), " tokens, but one sample of sequence length ",
          format.sequence_length, " needs ", format.sequence_length + 1,
          "; give more text, or train with a lower model.sequence_length"));
    }
    sources.push_back(std::move(source));
  }
  return sources;
}

absl::Status CheckAll(const std::vector<TokenSource>& sources, int64_t vocab_size) {
  for (const TokenSource& source : sources) {
    RETURN_IF_ERROR(source.CheckVocabulary(vocab_size));
  }
  return absl::OkStatus();
}

int64_t CountTokens(const std::vector<TokenSource>& sources) {
  int64_t tokens = 0;
  for (const TokenSource& source : sources) {
    tokens += source.tokens();
  }
  return tokens;
}

// Ids [begin, begin + count) of a source.
struct Piece {
  const TokenSource* source;
  int64_t begin;
  int64_t count;
};
constexpr int64_t kPieceIds = 1 << 14;

// kPieceIds ids of every `stride`, of the sources one after the other; cut where a source ends.
std::vector<Piece> PiecesAtDistance(const std::vector<TokenSource>& sources, int64_t stride) {
  std::vector<Piece> pieces;
  int64_t origin = 0;
  for (const TokenSource& source : sources) {
    const int64_t end = origin + source.tokens();
    for (int64_t at = origin / stride * stride; at < end; at += stride) {
      const int64_t begin = std::max(at, origin);
      const int64_t count = std::min(at + kPieceIds, end) - begin;
      if (count > 0) {
        pieces.push_back({&source, begin - origin, count});
      }
    }
    origin = end;
  }
  return pieces;
}

absl::Status FillRow(const Place& place, const SampleFormat& format, int32_t* tokens,
                     int32_t* targets) {
  const int64_t length = format.sequence_length;
  const int64_t begin = place.sample * length;
  place.source->Read(begin, length, tokens);
  std::copy(tokens + 1, tokens + length, targets);
  place.source->Read(begin + length, 1, targets + length - 1);
  place.source->Release(begin, length + 1);
  for (int64_t i = 0; i <= length; ++i) {
    const int32_t id = i == 0 ? tokens[0] : targets[i - 1];
    if (id < 0 || id >= format.vocab_size) {
      return absl::OutOfRangeError(absl::StrCat(place.source->Describe(begin + i), " has id ", id,
                                                ", outside the vocabulary of ", format.vocab_size));
    }
  }
  return absl::OkStatus();
}

// Fills one row from each place. All pages are asked for before the first is waited for.
absl::Status FillRows(const SampleFormat& format, Tensor tokens, Tensor targets,
                      absl::FunctionRef<Place(int64_t)> place_of_row) {
  const int64_t rows = tokens.size(0);
  CHECK_SHAPE(tokens, rows, format.sequence_length);
  CHECK_EQ(targets.shape(), tokens.shape());
  CHECK(tokens.device().is_cpu()) << "samples are read into host memory";
  CHECK(targets.device().is_cpu()) << "samples are read into host memory";
  for (int64_t row = 0; row < rows; ++row) {
    const Place place = place_of_row(row);
    place.source->WillNeed(place.sample * format.sequence_length, format.sequence_length + 1);
  }
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t offset = row * format.sequence_length;
    RETURN_IF_ERROR(FillRow(place_of_row(row), format, tokens.data<int32_t>() + offset,
                            targets.data<int32_t>() + offset));
  }
  return absl::OkStatus();
}

}  // namespace

int64_t SamplesIn(const TokenSource& source, int64_t sequence_length) {
  return std::max<int64_t>(0, source.tokens() - 1) / sequence_length;
}

absl::StatusOr<DataLoader> DataLoader::Open(std::span<const DataSource> sources,
                                            const SampleFormat& format, int64_t seed) {
  ASSIGN_OR_RETURN(std::vector<TokenSource> opened, OpenSources(sources, format));
  std::vector<SampleOrder::Source> shares;
  for (size_t i = 0; i < opened.size(); ++i) {
    if (!(sources[i].weight > 0)) {
      return absl::InvalidArgumentError(absl::StrCat(
          sources[i].path, " has weight ", sources[i].weight, "; a weight must be above 0"));
    }
    shares.push_back({SamplesIn(opened[i], format.sequence_length), sources[i].weight});
  }
  return DataLoader(std::move(opened), format, SampleOrder(static_cast<uint64_t>(seed), shares));
}

DataLoader::DataLoader(std::vector<TokenSource> sources, const SampleFormat& format,
                       SampleOrder order)
    : sources_(std::move(sources)), format_(format), order_(std::move(order)) {}

absl::Status DataLoader::CheckVocabulary() const { return CheckAll(sources_, format_.vocab_size); }

absl::Status DataLoader::Fill(int64_t first, Tensor tokens, Tensor targets) const {
  return FillRows(format_, tokens, targets, [&](int64_t row) {
    const SampleOrder::Sample sample = order_.At(first + row);
    return Place{&sources_[static_cast<size_t>(sample.source)], sample.index};
  });
}

std::vector<int64_t> DataLoader::CountIds(int64_t most_ids) const {
  CHECK_GE(most_ids, 1);
  const std::vector<Piece> pieces =
      PiecesAtDistance(sources_, CeilDiv(tokens(), most_ids) * kPieceIds);
  // So many are being read from disk while one is counted.
  constexpr size_t kAhead = 64;
  std::vector<int64_t> counts(static_cast<size_t>(format_.vocab_size));
  std::vector<int32_t> ids(kPieceIds);
  size_t asked = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    for (; asked < std::min(i + kAhead, pieces.size()); ++asked) {
      pieces[asked].source->WillNeed(pieces[asked].begin, pieces[asked].count);
    }
    const Piece& piece = pieces[i];
    piece.source->Read(piece.begin, piece.count, ids.data());
    piece.source->Release(piece.begin, piece.count);
    for (int64_t j = 0; j < piece.count; ++j) {
      const int32_t id = ids[static_cast<size_t>(j)];
      if (id >= 0 && id < format_.vocab_size) {
        ++counts[static_cast<size_t>(id)];
      }
    }
  }
  return counts;
}

int64_t DataLoader::tokens() const { return CountTokens(sources_); }

absl::StatusOr<ValidationSet> ValidationSet::Open(std::span<const DataSource> sources,
                                                  const SampleFormat& format, int64_t max_samples) {
  CHECK_GE(max_samples, 0);
  ASSIGN_OR_RETURN(std::vector<TokenSource> opened, OpenSources(sources, format));
  // The running total of samples, and its image when the whole shrinks to max_samples: rounding the
  // total and not each share makes the parts add up.
  std::vector<int64_t> totals = {0};
  for (const TokenSource& source : opened) {
    totals.push_back(totals.back() + SamplesIn(source, format.sequence_length));
  }
  const int64_t all = totals.back();
  if (max_samples > 0 && max_samples < all) {
    for (int64_t& total : totals) {
      total = static_cast<int64_t>(static_cast<__int128>(total) * max_samples / all);
    }
  }
  return ValidationSet(std::move(opened), format, std::move(totals));
}

ValidationSet::ValidationSet(std::vector<TokenSource> sources, const SampleFormat& format,
                             std::vector<int64_t> begins)
    : sources_(std::move(sources)), format_(format), begins_(std::move(begins)) {}

int64_t ValidationSet::tokens() const { return CountTokens(sources_); }

absl::Status ValidationSet::CheckVocabulary() const {
  return CheckAll(sources_, format_.vocab_size);
}

absl::Status ValidationSet::Fill(int64_t first, Tensor tokens, Tensor targets) const {
  CHECK_GE(first, 0);
  CHECK_LE(first + tokens.size(0), size());
  return FillRows(format_, tokens, targets, [&](int64_t row) {
    const auto after = std::upper_bound(begins_.begin(), begins_.end(), first + row);
    const auto source = static_cast<size_t>(after - begins_.begin()) - 1;
    return Place{&sources_[source], first + row - begins_[source]};
  });
}

}  // namespace panthera
