#ifndef PANTHERA_LAUNCHER_WEIGHT_SOURCE_H_
#define PANTHERA_LAUNCHER_WEIGHT_SOURCE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "model/options.h"
#include "runtime/checkpoint/file.h"
#include "runtime/checkpoint/weight_files.h"
#include "runtime/comm/host_group.h"

namespace panthera {

// A model on disk whose weights can be read: a Hugging Face directory, or a checkpoint of ours.
struct WeightSource {
  std::string config;  // the text of its config.json
  ModelOptions model;  // what that says
  WeightFiles weights;
};

// Opens a directory of a Hugging Face model, a checkpoint of a run, or a run at its newest
// checkpoint that is whole and holds only finite numbers, and checks that there is exactly every
// tensor that config.json asks for, in its shape and a type of floats. (Besides, there may be the
// rotary frequencies that old versions of transformers saved.) Rank 0 decides which it is. Errors
// name the file, the key or the tensor, and what helps. Collective; every rank gets the same
// status.
absl::StatusOr<WeightSource> OpenWeightSource(FileSystem& files, HostGroup& host,
                                              const std::string& path);

// Whether a tensor is one that models do not need: rotary frequencies, which follow from the
// options.
bool IsNeedless(const std::string& tensor);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_WEIGHT_SOURCE_H_
