#ifndef PANTHERA_LAUNCHER_CONFIG_ARGUMENTS_H_
#define PANTHERA_LAUNCHER_CONFIG_ARGUMENTS_H_

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace panthera {

// What every subcommand that works on a configuration takes: CONFIG [--set SECTION.KEY=VALUE]...
// LoadConfig turns it into RunOptions.
struct ConfigArguments {
  std::string path;
  std::vector<std::string> overrides;
};

enum class Presence { kRequired, kOptional };

// Adds the arguments to a subcommand; parsing fills `arguments`, which must outlive `command`.
void AddConfigArguments(CLI::App& command, Presence presence, ConfigArguments& arguments);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_CONFIG_ARGUMENTS_H_
