#ifndef PANTHERA_TESTS_RUNTIME_CHECKPOINT_SMALL_CHECKPOINT_H_
#define PANTHERA_TESTS_RUNTIME_CHECKPOINT_SMALL_CHECKPOINT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/checkpoint_save.h"
#include "tests/runtime/checkpoint/test_tensors.h"

namespace panthera::testing {

// Two small tensors whose values `seed` decides.
std::vector<LogicalTensor> SmallTensors(uint64_t seed);

// Begins to save them as set "model", with the seed in state.json, from as many ranks as the group
// has. `pieces`, of SmallTensors(seed), must outlive the save.
absl::StatusOr<std::unique_ptr<CheckpointSave>> BeginSmall(
    FileSystem& files, HostGroup& group, const std::string& run, int64_t step, uint64_t seed,
    RankPieces& pieces, SaveThread thread, const RetentionOptions& retention = {.keep_newest = 1});
// The pieces of this rank.
RankPieces SmallPieces(HostGroup& group, uint64_t seed);

// Ends what was begun.
absl::Status FinishSave(CheckpointSave& save);

// Does all of it.
absl::Status SaveSmall(FileSystem& files, HostGroup& group, const std::string& run, int64_t step,
                       uint64_t seed, const RetentionOptions& retention = {.keep_newest = 1},
                       SaveThread thread = SaveThread::kCaller);

// The seed of the newest checkpoint, after its values have been compared; 0 if there is none.
uint64_t LoadNewestSmall(FileSystem& files, HostGroup& group, const std::string& run);

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_RUNTIME_CHECKPOINT_SMALL_CHECKPOINT_H_
