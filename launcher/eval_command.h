#ifndef PANTHERA_LAUNCHER_EVAL_COMMAND_H_
#define PANTHERA_LAUNCHER_EVAL_COMMAND_H_

namespace CLI {
class App;
}

namespace panthera {

// panthera eval RUN --data FILE...: loss, perplexity and next-token accuracy of a checkpoint on
// token files, by position in the sequence. Under mpirun or srun the ranks share the sequences.
void AddEvalCommand(CLI::App& app, int& exit_code);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_EVAL_COMMAND_H_
