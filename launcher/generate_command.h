#ifndef PANTHERA_LAUNCHER_GENERATE_COMMAND_H_
#define PANTHERA_LAUNCHER_GENERATE_COMMAND_H_

namespace CLI {
class App;
}

namespace panthera {

// panthera generate RUN --prompt TEXT: continues a text. One process.
void AddGenerateCommand(CLI::App& app, int& exit_code);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_GENERATE_COMMAND_H_
