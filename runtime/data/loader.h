// Samples for training and evaluation.
//
// Sample s of a source with sequence length T is its ids [s*T, s*T + T + 1): inputs are the first T
// of them, targets the last T. Neighbouring samples share one id, so every id but the very first is
// a target exactly once; ids after the last whole sample are not used. Documents follow each other
// without a break, and the end-of-document id is a target like any other.
#ifndef PANTHERA_RUNTIME_DATA_LOADER_H_
#define PANTHERA_RUNTIME_DATA_LOADER_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "runtime/data/options.h"
#include "runtime/data/sample_order.h"
#include "runtime/data/token_source.h"
#include "runtime/device/tensor.h"

namespace panthera {

struct SampleFormat {
  // T.
  int64_t sequence_length;
  // Ids outside [0, vocab_size) are errors.
  int64_t vocab_size;
};

// The number of samples in a source; 0 if it has fewer than T + 1 ids.
int64_t SamplesIn(const TokenSource& source, int64_t sequence_length);

// The training samples in their shuffled, weighted order (sample_order.h), without end.
class DataLoader {
 public:
  // Opens all files and checks them as TokenFile::Open does. A source with fewer than T + 1 ids is
  // an error. Ids are not read: see CheckVocabulary.
  static absl::StatusOr<DataLoader> Open(std::span<const DataSource> sources,
                                         const SampleFormat& format, int64_t seed);

  // Reads every id of every source once and reports the first that is outside the vocabulary.
  absl::Status CheckVocabulary() const;

  // Fills row i of `tokens` and `targets`, both i32 [B, T] on the CPU, with the global sample
  // first + i, for all i < B. Blocks while pages come from disk, and keeps none of them: the
  // process's memory grows neither with the files nor with what is read of them. An id outside the
  // vocabulary is an error that names file and position; the tensors are then partly written.
  absl::Status Fill(int64_t first, Tensor tokens, Tensor targets) const;

  const std::vector<TokenSource>& sources() const { return sources_; }
  // How often each id of the vocabulary occurs in the sources, their weights aside: [vocab_size].
  // Of more than `most_ids` ids only pieces at equal distances are read and counted, at most one
  // piece (16,384 ids) more than `most_ids` in all, whatever the sizes and the number of sources.
  // Ids outside the vocabulary are not counted.
  std::vector<int64_t> CountIds(int64_t most_ids) const;
  // Ids of one pass over every source.
  int64_t tokens() const;
  // Where global sample g comes from.
  SampleOrder::Sample At(int64_t g) const { return order_.At(g); }

 private:
  DataLoader(std::vector<TokenSource> sources, const SampleFormat& format, SampleOrder order);

  std::vector<TokenSource> sources_;
  SampleFormat format_;
  SampleOrder order_;
};

// A fixed set of samples to measure the loss on: the first ones of every source, in file order, the
// same in every evaluation and for every number of ranks. Weights play no part.
class ValidationSet {
 public:
  // At most `max_samples` samples, drawn from the sources in proportion to their sizes; all of them
  // if max_samples is 0. Errors as in DataLoader::Open.
  static absl::StatusOr<ValidationSet> Open(std::span<const DataSource> sources,
                                            const SampleFormat& format, int64_t max_samples);

  int64_t size() const { return begins_.back(); }
  // Ids of the whole sources, beyond those of the samples.
  int64_t tokens() const;
  // As DataLoader::CheckVocabulary.
  absl::Status CheckVocabulary() const;
  // As DataLoader::Fill, with samples [first, first + B) of [0, size()).
  absl::Status Fill(int64_t first, Tensor tokens, Tensor targets) const;

 private:
  ValidationSet(std::vector<TokenSource> sources, const SampleFormat& format,
                std::vector<int64_t> begins);

  std::vector<TokenSource> sources_;
  SampleFormat format_;
  // The number in the set of each source's first sample; one more entry for the end.
  std::vector<int64_t> begins_;
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_DATA_LOADER_H_
