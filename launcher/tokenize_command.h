#ifndef PANTHERA_LAUNCHER_TOKENIZE_COMMAND_H_
#define PANTHERA_LAUNCHER_TOKENIZE_COMMAND_H_

namespace CLI {
class App;
}

namespace panthera {

// panthera tokenize INPUT... --output STEM: turns text into token files that `panthera train`
// reads, with a tokenizer that exists or is trained on the way. The callback sets exit_code.
void AddTokenizeCommand(CLI::App& app, int& exit_code);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_TOKENIZE_COMMAND_H_
