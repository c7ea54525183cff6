// The safetensors container (https://github.com/huggingface/safetensors): eight bytes of header
// length (little-endian), a JSON header padded with spaces to a multiple of eight bytes, then the
// tensors' bytes without gaps. transformers opens such files directly, and several of them through
// an index file that maps tensor names to files.
#ifndef PANTHERA_RUNTIME_CHECKPOINT_SAFETENSORS_H_
#define PANTHERA_RUNTIME_CHECKPOINT_SAFETENSORS_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "runtime/base/dtype.h"
#include "runtime/base/shape.h"
#include "runtime/checkpoint/file.h"

namespace panthera {

struct TensorDescription {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;

  int64_t bytes() const { return shape.elements() * SizeOf(dtype); }
};

struct SafetensorsEntry {
  TensorDescription tensor;
  int64_t begin = 0;  // first byte, counted from the beginning of the file
};

struct SafetensorsHeader {
  std::string bytes;  // everything before the first tensor
  std::vector<SafetensorsEntry> entries;
  int64_t file_bytes = 0;
};

// The name of an element type in the container: "F32", "BF16", ..., and back. The error of an
// unknown or unsupported name lists those that are supported.
const char* SafetensorsName(DType dtype);
absl::StatusOr<DType> DTypeFromSafetensors(const std::string& name);

// A shape from sizes read from a file: at most four, none negative, a product below 2^63.
absl::StatusOr<Shape> ShapeFromSizes(std::span<const int64_t> sizes);

// Lays the tensors out one after the other in the order given. Wider element types should come
// first so that every tensor is aligned to its elements.
SafetensorsHeader LayOutSafetensors(std::span<const TensorDescription> tensors);

// Reads and checks a file's header: every tensor's offsets must agree with its type and shape, and
// together the tensors must cover the rest of the file exactly. Errors name `path`.
absl::StatusOr<SafetensorsHeader> ReadSafetensorsHeader(File& file, const std::string& path);

// The tensors of one set, spread over files in order: a new file begins where the next whole tensor
// would make the current one's tensors larger than `max_file_bytes`. One file is named
// "<set>.safetensors", several "<set>-00001-of-00003.safetensors" and so on.
struct SafetensorsFile {
  std::string name;
  SafetensorsHeader header;
};
std::vector<SafetensorsFile> SpreadOverFiles(const std::string& set,
                                             std::span<const TensorDescription> tensors,
                                             int64_t max_file_bytes);

// The contents of "<set>.safetensors.index.json".
std::string SafetensorsIndexJson(std::span<const SafetensorsFile> files);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_CHECKPOINT_SAFETENSORS_H_
