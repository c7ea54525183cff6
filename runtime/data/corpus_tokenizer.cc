#include "runtime/data/corpus_tokenizer.h"

#include <cmath>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "runtime/base/check.h"
#include "runtime/base/parallel_for.h"
#include "runtime/base/status_macros.h"
#include "runtime/data/megatron_writer.h"
#include "runtime/data/text_encoder.h"

namespace panthera {
namespace {

constexpr int64_t kBatchBytes = 4 << 20;
constexpr size_t kTaskBytes = 64 << 10;

// A piece of text that one thread encodes.
struct Task {
  std::string_view text;
  TextStart start;
  CorpusPart part;
  bool ends_document;
  std::vector<int32_t> ids;
};

// Encoders that threads take turns with, so that what an encoder remembers outlives a batch.
class EncoderPool {
 public:
  explicit EncoderPool(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  std::unique_ptr<TextEncoder> Take() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (idle_.empty()) {
      return std::make_unique<TextEncoder>(tokenizer_);
    }
    std::unique_ptr<TextEncoder> encoder = std::move(idle_.back());
    idle_.pop_back();
    return encoder;
  }

  void Return(std::unique_ptr<TextEncoder> encoder) {
    const std::lock_guard<std::mutex> lock(mutex_);
    idle_.push_back(std::move(encoder));
  }

 private:
  const Tokenizer& tokenizer_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<TextEncoder>> idle_;
};

// One pair of token files in the making.
class PartWriter {
 public:
  static absl::StatusOr<PartWriter> Create(const std::string& stem, const Tokenizer& tokenizer) {
    ASSIGN_OR_RETURN(MegatronWriter writer, MegatronWriter::Create(stem, tokenizer.vocab_size()));
    return PartWriter(std::move(writer), tokenizer);
  }

  absl::Status Write(Task& task) {
    if (task.ends_document) {
      task.ids.push_back(eos_id_);
    }
    RETURN_IF_ERROR(writer_.Append(task.ids));
    for (const int32_t id : task.ids) {
      ++report_.counts[static_cast<size_t>(id)];
    }
    report_.bytes += static_cast<int64_t>(task.text.size());
    report_.tokens = writer_.tokens();
    if (task.ends_document) {
      RETURN_IF_ERROR(writer_.EndDocument());
    }
    report_.documents = writer_.documents();
    return absl::OkStatus();
  }

  absl::Status Publish() { return writer_.Publish(); }
  const CorpusPartReport& report() const { return report_; }

 private:
  PartWriter(MegatronWriter writer, const Tokenizer& tokenizer)
      : writer_(std::move(writer)), eos_id_(tokenizer.eos_id()) {
    report_.counts.assign(static_cast<size_t>(tokenizer.vocab_size()), 0);
  }

  MegatronWriter writer_;
  int32_t eos_id_;
  CorpusPartReport report_;
};

// Appends the tasks of a piece. Where the text is cut depends on nothing but the text.
void AddTasks(const DocumentPiece& piece, CutRules cuts, std::vector<Task>& tasks) {
  std::string_view rest = piece.text;
  TextStart start = piece.begins_document ? TextStart::kDocument : TextStart::kContinuation;
  while (true) {
    size_t length = rest.size();
    if (cuts.after_newline && rest.size() > kTaskBytes) {
      const size_t newline = rest.find('\n', kTaskBytes);
      length = newline == std::string_view::npos ? rest.size() : newline + 1;
    }
    const bool last = length == rest.size();
    tasks.push_back({rest.substr(0, length), start, piece.part, last && piece.ends_document, {}});
    if (last) {
      return;
    }
    rest.remove_prefix(length);
    start = TextStart::kContinuation;
  }
}

// Reads pieces until they hold about kBatchBytes. No pieces means the end.
absl::StatusOr<std::vector<DocumentPiece>> ReadBatch(DocumentReader& reader) {
  std::vector<DocumentPiece> pieces;
  int64_t bytes = 0;
  while (bytes < kBatchBytes) {
    DocumentPiece piece;
    ASSIGN_OR_RETURN(const bool found, reader.Next(piece));
    if (!found) {
      break;
    }
    bytes += static_cast<int64_t>(piece.text.size());
    pieces.push_back(std::move(piece));
  }
  return pieces;
}

void EncodeTasks(std::vector<Task>& tasks, EncoderPool& encoders) {
  ParallelFor(static_cast<int64_t>(tasks.size()), 1, [&](int64_t begin, int64_t end) {
    std::unique_ptr<TextEncoder> encoder = encoders.Take();
    for (int64_t i = begin; i < end; ++i) {
      Task& task = tasks[static_cast<size_t>(i)];
      encoder->Encode(task.text, task.start, task.ids);
    }
    encoders.Return(std::move(encoder));
  });
}

}  // namespace

double UnigramEntropy(const std::vector<int64_t>& counts) {
  double total = 0;
  for (const int64_t count : counts) {
    total += static_cast<double>(count);
  }
  double entropy = 0;
  for (const int64_t count : counts) {
    if (count > 0) {
      const double share = static_cast<double>(count) / total;
      entropy -= share * std::log(share);
    }
  }
  return entropy;
}

absl::StatusOr<CorpusReport> TokenizeCorpus(const DocumentOptions& documents,
                                            const Tokenizer& tokenizer,
                                            const std::string& training_stem,
                                            const std::string& validation_stem,
                                            absl::FunctionRef<void(const CorpusProgress&)> progress,
                                            absl::FunctionRef<void()> before_publish) {
  CHECK_EQ(validation_stem.empty(), documents.validation_fraction == 0);
  ASSIGN_OR_RETURN(DocumentReader reader, DocumentReader::Open(documents));
  ASSIGN_OR_RETURN(PartWriter training, PartWriter::Create(training_stem, tokenizer));
  std::optional<PartWriter> validation;
  if (!validation_stem.empty()) {
    ASSIGN_OR_RETURN(PartWriter writer, PartWriter::Create(validation_stem, tokenizer));
    validation.emplace(std::move(writer));
  }
  EncoderPool encoders(tokenizer);
  int64_t tokens = 0;
  while (true) {
    ASSIGN_OR_RETURN(const std::vector<DocumentPiece> pieces, ReadBatch(reader));
    if (pieces.empty()) {
      break;
    }
    std::vector<Task> tasks;
    for (const DocumentPiece& piece : pieces) {
      AddTasks(piece, tokenizer.cut_rules(), tasks);
    }
    EncodeTasks(tasks, encoders);
    for (Task& task : tasks) {
      PartWriter& writer = task.part == CorpusPart::kTraining ? training : *validation;
      RETURN_IF_ERROR(writer.Write(task));
      tokens += static_cast<int64_t>(task.ids.size());
    }
    progress({reader.bytes_read(), reader.bytes_total(), tokens});
  }

  CorpusReport report;
  report.training = training.report();
  if (report.training.documents == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        documents.inputs.front(), documents.inputs.size() == 1 ? " holds" : " and the others hold",
        " no text to train on; give files with text"));
  }
  if (validation.has_value()) {
    report.validation = validation->report();
    if (report.validation.documents == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("no document falls to validation: ", report.training.documents,
                       " documents are too few for a fraction of ", documents.validation_fraction,
                       "; raise the fraction"));
    }
  }
  before_publish();
  if (validation.has_value()) {
    RETURN_IF_ERROR(validation->Publish());
  }
  RETURN_IF_ERROR(training.Publish());
  return report;
}

}  // namespace panthera
