// A run's options as text.
#ifndef PANTHERA_LAUNCHER_CONFIG_TEXT_H_
#define PANTHERA_LAUNCHER_CONFIG_TEXT_H_

#include <string>
#include <vector>

#include "launcher/run_options.h"

namespace panthera {

struct ConfigField {
  std::string key;    // "model.layers", "data.train[0].path"
  std::string value;  // as in TOML; equal texts if and only if equal values
  std::string help;
};

// Every field in the order of the file, those of list entries included.
std::vector<ConfigField> ListFields(const RunOptions& options);

// A complete configuration file: every key with its meaning, its range or choices, and its value.
// Reading it gives equal options.
std::string PrintConfig(const RunOptions& options);

// The beginning of a configuration: the section of the model as PrintConfig has it, and
// train.start_from.
std::string PrintModelConfig(const ModelOptions& model, const std::string& start_from);

// As PrintConfig for the defaults, with one entry in every list so that its keys are explained too.
std::string PrintConfigReference();

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_CONFIG_TEXT_H_
