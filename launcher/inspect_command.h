#ifndef PANTHERA_LAUNCHER_INSPECT_COMMAND_H_
#define PANTHERA_LAUNCHER_INSPECT_COMMAND_H_

namespace CLI {
class App;
}

namespace panthera {

// Adds `panthera inspect`; when it runs, it leaves its exit code in `exit_code`.
void AddInspectCommand(CLI::App& app, int& exit_code);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_INSPECT_COMMAND_H_
