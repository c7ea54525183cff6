// What ranks agree on before and after they write a checkpoint.
#ifndef PANTHERA_RUNTIME_CHECKPOINT_SAVE_PLAN_H_
#define PANTHERA_RUNTIME_CHECKPOINT_SAVE_PLAN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/manifest.h"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/comm/host_group.h"

namespace panthera {

// Where a tensor lies in the new checkpoint.
struct TensorPlace {
  std::string file;
  int64_t begin = 0;  // in bytes
};

// What all ranks know before anything is written.
struct SavePlan {
  std::string directory;                                // ends in .tmp
  std::vector<std::vector<SafetensorsFile>> set_files;  // by set
  std::vector<std::string> set_names;
  absl::flat_hash_map<std::string, TensorPlace> places;  // by TensorKey
};

// This rank's slices, without checksums. Aborts over a piece that cannot be saved.
RankRecord Describe(const CheckpointContents& contents);

// Sends this rank's part to all and joins the parts of all: tensors in the order in which files
// hold them (wide element types first, then by name), slices by first element. Collective; the
// result is the same on all ranks.
absl::StatusOr<RankRecord> JoinRecords(HostGroup& group, const RankRecord& own);

// The files of a checkpoint that holds the tensors of `joined`, none with more than
// `max_file_bytes` of them but for a larger tensor's own.
SavePlan MakePlan(const std::string& directory, const RankRecord& joined, int64_t max_file_bytes);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_CHECKPOINT_SAVE_PLAN_H_
