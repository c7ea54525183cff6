#ifndef PANTHERA_TESTS_RUNTIME_CHECKPOINT_SMALL_CHECKPOINT_H_
#define PANTHERA_TESTS_RUNTIME_CHECKPOINT_SMALL_CHECKPOINT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/checkpoint/checkpoint.h"
#include "tests/runtime/checkpoint/test_tensors.h"

namespace panthera::testing {

// Two small tensors whose values `seed` decides.
std::vector<LogicalTensor> SmallTensors(uint64_t seed);

// Saves them as set "model", with the seed in state.json, from as many ranks as the group has.
absl::Status SaveSmall(FileSystem& files, HostGroup& group, const std::string& run, int64_t step,
                       uint64_t seed, const RetentionOptions& retention = {.keep_newest = 1});

// The seed of the newest checkpoint, after its values have been compared; 0 if there is none.
uint64_t LoadNewestSmall(FileSystem& files, HostGroup& group, const std::string& run);

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_RUNTIME_CHECKPOINT_SMALL_CHECKPOINT_H_
