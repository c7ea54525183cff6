#ifndef PANTHERA_LAUNCHER_TRAIN_COMMAND_H_
#define PANTHERA_LAUNCHER_TRAIN_COMMAND_H_

namespace CLI {
class App;
}

namespace panthera {

// panthera train CONFIG [--set SECTION.KEY=VALUE]... [--fresh]: pretrains a model. Under mpirun or
// srun every process is a rank; alone it is the only one.
void AddTrainCommand(CLI::App& app, int& exit_code);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_TRAIN_COMMAND_H_
