// Checkpoints: sharded saving, loading onto any mesh, and finding the newest one that is whole.
//
// RUN_DIR/checkpoints/step_00001000/
//   model.safetensors      weights under the names of Hugging Face checkpoints, whole tensors;
//                          above 5 GB model-00001-of-0000N.safetensors and
//                          model.safetensors.index.json
//   <set>.safetensors      one such set per kind of state, such as "momentum" or "remainder", with
//                          the parameters' names
//   state.json             what the caller wants to know when it resumes
//   config.json ...        small files as the caller gave them
//   manifest.json          last; see manifest.h
//
// Saving: everything is written to step_00001000.tmp and brought to the disk; then comes the
// manifest and a rename, and only then are older checkpoints removed. At whatever point the program
// is killed, either the old or the new checkpoint is the newest valid one. Other names that a
// killed program can leave: .replaced (an older save of the same step, valid as long as no newer
// one is) and .deleted (half removed); the next save clears them away.
#ifndef PANTHERA_RUNTIME_CHECKPOINT_CHECKPOINT_H_
#define PANTHERA_RUNTIME_CHECKPOINT_CHECKPOINT_H_

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "runtime/checkpoint/element_runs.h"
#include "runtime/checkpoint/file.h"
#include "runtime/checkpoint/manifest.h"
#include "runtime/checkpoint/retention.h"
#include "runtime/comm/host_group.h"
#include "runtime/device/tensor.h"

namespace panthera {

// Part of a logical tensor, in memory of this rank or its GPU, with which nothing else is going on
// while a call below lasts. `data` has runs.elements() elements,
// packed run after run; its type is the tensor's type in the file. Pieces without elements are
// ignored.
struct TensorPiece {
  std::string name;
  Shape global_shape;
  ElementRuns runs;
  Tensor data;
};

struct TensorSet {
  // Lower-case letters, digits and '_'. The weights are "model".
  std::string name;
  std::vector<TensorPiece> pieces;
  // Names of tensors that other programs need and that a load must not ask for.
  std::vector<std::string> derived;
};

struct SmallFile {
  std::string name;
  std::string contents;
};

struct CheckpointContents {
  int64_t step = 0;
  std::string program;  // the program's version
  // This rank's pieces. Over all ranks every element of every tensor must be given exactly once.
  std::vector<TensorSet> sets;
  // Of rank 0 only; "state.json" and the files that let other programs open the directory.
  std::vector<SmallFile> small_files;
  // The largest size of the tensors in one file; a larger tensor gets a file of its own.
  int64_t max_file_bytes = 5'000'000'000;
};

// RUN_DIR/checkpoints/step_00001000.
std::string CheckpointDirectory(const std::string& run_directory, int64_t step);

// Saves what all ranks give and removes what `retention` no longer keeps. Collective; every rank
// gets the same status. After an error the older checkpoints are as they were. The files' bytes do
// not depend on how the tensors are sharded (only the manifest's slices do). Blocks on the disk and
// the peers until all is done; CheckpointSave (checkpoint_save.h) does the same in parts.
absl::Status SaveCheckpoint(FileSystem& files, HostGroup& group, const std::string& run_directory,
                            const CheckpointContents& contents, const RetentionOptions& retention);

// A checkpoint whose manifest, file sizes, small files and headers have been checked.
class Checkpoint {
 public:
  // Errors name the file and the reason; IsDamage tells whether the checkpoint is at fault. Local.
  static absl::StatusOr<Checkpoint> Open(FileSystem& files, const std::string& directory);

  const std::string& directory() const { return directory_; }
  const Manifest& manifest() const { return manifest_; }
  int64_t step() const { return manifest_.step; }

  // The set of this name, or null.
  const TensorSetRecord* FindSet(const std::string& name) const;
  // A small file's contents, checked. Local.
  absl::StatusOr<std::string> ReadSmallFile(FileSystem& files, const std::string& name) const;
  // Where in its file a tensor begins, in bytes.
  int64_t TensorBegin(const TensorSetRecord& set, const TensorRecord& record) const;

 private:
  std::string directory_;
  Manifest manifest_;
  absl::flat_hash_map<std::string, int64_t> tensor_begins_;  // by TensorKey
};

// Whether an error of Open means that the checkpoint is not whole: something is missing, cut off or
// altered. Other errors (no permission, a failing disk) say nothing about the checkpoint.
bool IsDamage(const absl::Status& status);

// Whether an error of Open means that the checkpoint is whole but of a format version that this
// program does not read. A search stops at such a checkpoint: passing it over would train anew what
// another version has trained already.
bool IsOtherVersion(const absl::Status& status);

// Fills `data` of all pieces of one set from a checkpoint that may have been saved with any other
// sharding. Reads only the blocks that the pieces lie in and verifies every one; needs host memory
// for one block. Collective; every rank gets the same status, and after an error the pieces'
// contents are undefined. Tensors that are missing, left over (wanted by no rank) or of another
// shape or type are errors that name both sides.
absl::Status LoadPieces(FileSystem& files, HostGroup& group, const Checkpoint& checkpoint,
                        const std::string& set, std::vector<TensorPiece>& pieces);

// The two halves of LoadPieces, for who reads a set in parts. First all that the ranks want of it
// is checked; nothing is read, and the data may be on kMeta. Collective; every rank gets the same
// status.
absl::Status CheckPieces(HostGroup& group, const Checkpoint& checkpoint, const std::string& set,
                         const std::vector<TensorPiece>& pieces);
// Then any of those pieces are filled, as often as there are parts. Local.
absl::Status ReadPieces(FileSystem& files, const Checkpoint& checkpoint, const std::string& set,
                        std::vector<TensorPiece>& pieces);

struct FoundCheckpoint {
  std::optional<Checkpoint> checkpoint;
  // One line for each newer checkpoint that was passed over, saying why.
  std::vector<std::string> skipped;
  // One line for each newer save that was cut short: it never was a checkpoint, and nothing is lost
  // with it.
  std::vector<std::string> unfinished;
};

// The newest checkpoint of a run that is whole, holds only finite numbers and has a step below
// `before_step`; none is no error, but a disk that cannot be read is, and so is a newer checkpoint
// of another format version. Collective; every rank gets
// the same answer, on which rank 0 decides.
absl::StatusOr<FoundCheckpoint> FindNewest(
    FileSystem& files, HostGroup& group, const std::string& run_directory,
    int64_t before_step = std::numeric_limits<int64_t>::max());

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_CHECKPOINT_CHECKPOINT_H_
