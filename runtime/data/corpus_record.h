// STEM.json beside a pair of token files: what they were made from, and what came out. It is
// written last, so with it everything else is complete.
#ifndef PANTHERA_RUNTIME_DATA_CORPUS_RECORD_H_
#define PANTHERA_RUNTIME_DATA_CORPUS_RECORD_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "runtime/data/corpus_tokenizer.h"
#include "runtime/data/document_reader.h"
#include "runtime/data/tokenizer.h"

namespace panthera {

// Everything that decides the content of the outputs, as JSON text: the documents' options, each
// input with size and time of change, the outputs' names, and `tokenizer`, which says which
// tokenizer is used or how it is trained.
std::string CorpusRecipe(const DocumentOptions& documents, const std::string& tokenizer,
                         const std::vector<std::string>& outputs);

// The file's summary if it exists and was written for this recipe; else NotFound.
absl::StatusOr<std::string> ReadCorpusRecord(const std::string& path, const std::string& recipe);

absl::Status WriteCorpusRecord(const std::string& path, const std::string& recipe,
                               const Tokenizer& tokenizer, const CorpusReport& report,
                               const std::string& summary);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_DATA_CORPUS_RECORD_H_
