#ifndef PANTHERA_LAUNCHER_CONVERT_COMMAND_H_
#define PANTHERA_LAUNCHER_CONVERT_COMMAND_H_

namespace CLI {
class App;
}

namespace panthera {

// Adds `panthera convert`; when it runs, it leaves its exit code in `exit_code`.
void AddConvertCommand(CLI::App& app, int& exit_code);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_CONVERT_COMMAND_H_
