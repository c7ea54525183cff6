#include "tests/runtime/checkpoint/small_checkpoint.h"

#include <gtest/gtest.h>

namespace panthera::testing {

std::vector<LogicalTensor> SmallTensors(uint64_t seed) {
  return {MakeTensor("a", {7, 5}, DType::kF32, seed), MakeTensor("b", {9}, DType::kBF16, seed)};
}

absl::Status SaveSmall(FileSystem& files, HostGroup& group, const std::string& run, int64_t step,
                       uint64_t seed, const RetentionOptions& retention) {
  RankPieces pieces(SmallTensors(seed), group.rank(), group.size(), Split::kRuns, Fill::kValues);
  CheckpointContents contents;
  contents.step = step;
  contents.program = "test";
  contents.sets = {{"model", pieces.pieces(), {}}};
  contents.small_files = {{"state.json", std::to_string(seed)}};
  return SaveCheckpoint(files, group, run, contents, retention);
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
