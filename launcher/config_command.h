#ifndef PANTHERA_LAUNCHER_CONFIG_COMMAND_H_
#define PANTHERA_LAUNCHER_CONFIG_COMMAND_H_

namespace CLI {
class App;
}

namespace panthera {

// panthera config [CONFIG] [--set SECTION.KEY=VALUE]...: prints every key of a configuration with
// its meaning and value; without CONFIG, the defaults.
void AddConfigCommand(CLI::App& app, int& exit_code);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_CONFIG_COMMAND_H_
