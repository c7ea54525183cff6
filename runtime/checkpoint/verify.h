// Reading every byte of a checkpoint without a model to load it into.
#ifndef PANTHERA_RUNTIME_CHECKPOINT_VERIFY_H_
#define PANTHERA_RUNTIME_CHECKPOINT_VERIFY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/safetensors.h"

namespace panthera {

// Of the finite elements of a tensor, in double precision, block by block in the file's order.
class TensorStatistics {
 public:
  // `bytes` are whole elements of the type.
  void Add(std::span<const std::byte> bytes, DType dtype);

  int64_t elements() const { return finite_ + non_finite_; }
  int64_t non_finite() const { return non_finite_; }
  // 0 if no element is finite.
  double min() const { return finite_ == 0 ? 0 : min_; }
  double max() const { return finite_ == 0 ? 0 : max_; }
  // sqrt(sum x^2 / n).
  double rms() const;

 private:
  int64_t finite_ = 0;
  int64_t non_finite_ = 0;
  double min_ = 0;
  double max_ = 0;
  double sum_of_squares_ = 0;
};

struct VerifiedTensor {
  const TensorRecord* record = nullptr;
  TensorStatistics statistics;      // of the blocks that are whole
  std::vector<std::string> damage;  // one line for each block that is not
};
using VerifiedTensorVisitor = absl::FunctionRef<void(const std::string& set, VerifiedTensor)>;

// Reads every block of every tensor of every set, derived ones too, in the order of the manifest;
// needs memory for one block. The error is of a disk that cannot be read, not of damage. Local.
absl::Status VerifyTensors(FileSystem& files, const Checkpoint& checkpoint,
                           VerifiedTensorVisitor visit);

// As above for a tensor of a safetensors file alone, which has no checksums.
absl::StatusOr<TensorStatistics> ReadStatistics(File& file, const SafetensorsEntry& entry);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_CHECKPOINT_VERIFY_H_
