// What `panthera convert` does.
#ifndef PANTHERA_LAUNCHER_CONVERSION_H_
#define PANTHERA_LAUNCHER_CONVERSION_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"

#include "runtime/base/dtype.h"
#include "runtime/checkpoint/file.h"

namespace panthera {

struct ConversionOptions {
  // What OpenWeightSource takes.
  std::string source;
  // The directory to make; nothing may be there yet.
  std::string output;
  // Of all tensors; absent: each keeps its own.
  std::optional<DType> dtype;
  // The largest size of the tensors in one file; a larger tensor gets a file of its own.
  int64_t max_file_bytes = 5'000'000'000;
};

struct Conversion {
  std::string source;  // the directory that was read
  int64_t parameters = 0;
  int64_t tensors = 0;
  int64_t weight_bytes = 0;
  int64_t weight_files = 0;
};

// Writes the weights of a source as a Hugging Face model: model.safetensors, or several files and
// an index; config.json with the new type; the files of the tokenizer and for generation as they
// are; and model.toml, the [model] of a configuration that starts from the result. Tensors keep
// their bits where their type stays, others are rounded to nearest, ties to even; a finite number
// that would become infinite is an error that names its tensor.
//
// Reads and writes a block at a time. Everything is written to "<output>.tmp", which is renamed
// when it is whole and on the disk, and removed after an error. A checkpoint's checksums are
// verified.
absl::StatusOr<Conversion> Convert(FileSystem& files, const ConversionOptions& options);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_CONVERSION_H_
