#ifndef PANTHERA_RUNTIME_DATA_CORPUS_TOKENIZER_H_
#define PANTHERA_RUNTIME_DATA_CORPUS_TOKENIZER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"

#include "runtime/data/document_reader.h"
#include "runtime/data/tokenizer.h"

namespace panthera {

// What was written to one pair of token files.
struct CorpusPartReport {
  int64_t documents = 0;
  int64_t tokens = 0;
  // Of text, as UTF-8.
  int64_t bytes = 0;
  // How often each id occurs; vocab_size long.
  std::vector<int64_t> counts;
};

// The entropy -sum p ln p of the distribution of ids, in nats per token: the loss of the best
// prediction that looks at no context. A model that learns gets below it.
double UnigramEntropy(const std::vector<int64_t>& counts);

struct CorpusReport {
  CorpusPartReport training;
  CorpusPartReport validation;
};

struct CorpusProgress {
  int64_t bytes_read;
  int64_t bytes_total;
  int64_t tokens;
};

// Encodes all documents on all threads and writes them as Megatron pairs, each document followed by
// the tokenizer's end-of-document id. Memory does not grow with the input. The output does not
// depend on the number of threads. Both pairs appear at the end, or none.
//
// `validation_stem` may be empty if documents.validation_fraction is 0. Calls `progress` several
// times a second from the calling thread, and `before_publish` when everything is encoded, before
// files of the pairs' names are replaced; until then an error leaves those as they were. Errors:
// those of DocumentReader and MegatronWriter, and a training or validation part without a document.
absl::StatusOr<CorpusReport> TokenizeCorpus(const DocumentOptions& documents,
                                            const Tokenizer& tokenizer,
                                            const std::string& training_stem,
                                            const std::string& validation_stem,
                                            absl::FunctionRef<void(const CorpusProgress&)> progress,
                                            absl::FunctionRef<void()> before_publish);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_DATA_CORPUS_TOKENIZER_H_
