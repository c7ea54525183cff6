#include "tests/runtime/checkpoint/small_checkpoint.h"

#include <utility>

#include <gtest/gtest.h>

#include "runtime/base/status_macros.h"

namespace panthera::testing {

std::vector<LogicalTensor> SmallTensors(uint64_t seed) {
  return {MakeTensor("a", {7, 5}, DType::kF32, seed), MakeTensor("b", {9}, DType::kBF16, seed)};
}

RankPieces SmallPieces(HostGroup& group, uint64_t seed) {
  return {SmallTensors(seed), group.rank(), group.size(), Split::kRuns, Fill::kValues};
}

absl::StatusOr<std::unique_ptr<CheckpointSave>> BeginSmall(FileSystem& files, HostGroup& group,
                                                           const std::string& run, int64_t step,
                                                           uint64_t seed, RankPieces& pieces,
                                                           SaveThread thread,
                                                           const RetentionOptions& retention) {
  CheckpointContents contents;
  contents.step = step;
  contents.program = "test";
  contents.sets = {{"model", pieces.pieces(), {}}};
  contents.small_files = {{"state.json", std::to_string(seed)}};
  return CheckpointSave::Begin(files, group, run, std::move(contents), retention, thread);
}

absl::Status FinishSave(CheckpointSave& save) {
  while (!save.is_complete()) {
    RETURN_IF_ERROR(save.Advance());
  }
  return absl::OkStatus();
}

absl::Status SaveSmall(FileSystem& files, HostGroup& group, const std::string& run, int64_t step,
                       uint64_t seed, const RetentionOptions& retention, SaveThread thread) {
  RankPieces pieces = SmallPieces(group, seed);
  ASSIGN_OR_RETURN(const std::unique_ptr<CheckpointSave> save,
                   BeginSmall(files, group, run, step, seed, pieces, thread, retention));
  return FinishSave(*save);
}

uint64_t LoadNewestSmall(FileSystem& files, HostGroup& group, const std::string& run) {
  const absl::StatusOr<FoundCheckpoint> found = FindNewest(files, group, run);
  EXPECT_TRUE(found.ok()) << found.status();
  if (!found.ok() || !found->checkpoint.has_value()) {
    return 0;
  }
  const uint64_t seed = std::stoul(*found->checkpoint->ReadSmallFile(files, "state.json"));
  RankPieces pieces(SmallTensors(seed), group.rank(), group.size(), Split::kRuns, Fill::kZero);
  const absl::Status loaded =
      LoadPieces(files, group, *found->checkpoint, "model", pieces.pieces());
  EXPECT_TRUE(loaded.ok()) << loaded;
  pieces.ExpectValues(SmallTensors(seed));
  return seed;
}

}  // namespace panthera::testing
