// What differs between the configuration of a run and the one it is resumed with.
#ifndef PANTHERA_LAUNCHER_CONFIG_CHANGES_H_
#define PANTHERA_LAUNCHER_CONFIG_CHANGES_H_

#include <string>
#include <vector>

#include "launcher/run_options.h"

namespace panthera {

struct ConfigChange {
  std::string key;
  std::string before;  // as in TOML; "(absent)" for a list entry that was not there
  std::string after;   // likewise, for one that is no more

  // "train.steps: 100 -> 200"
  std::string ToString() const;
};

// The fields whose values differ. Compare options that are both finished or both not: otherwise a
// default differs from the value that it stands for.
std::vector<ConfigChange> CompareConfigs(const RunOptions& before, const RunOptions& after);

struct ResumeChanges {
  // Would continue a different run: the model, the data and their order, the seed, the batch, and
  // what decides which state a checkpoint holds.
  std::vector<ConfigChange> refused;
  // May change from one start to the next; to be logged.
  std::vector<ConfigChange> allowed;
};

ResumeChanges ClassifyForResume(const std::vector<ConfigChange>& changes);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_CONFIG_CHANGES_H_
