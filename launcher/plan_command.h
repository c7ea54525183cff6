#ifndef PANTHERA_LAUNCHER_PLAN_COMMAND_H_
#define PANTHERA_LAUNCHER_PLAN_COMMAND_H_

namespace CLI {
class App;
}

namespace panthera {

// panthera plan CONFIG --ranks N [--device cuda --memory 80GiB]: what a run will need, worked out
// by one step on kMeta: nothing is started, no data is read.
void AddPlanCommand(CLI::App& app, int& exit_code);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_PLAN_COMMAND_H_
